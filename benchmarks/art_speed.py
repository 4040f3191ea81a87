"""The time of our attacks and masking thresholds beside adversarial-robustness-toolbox (ART), measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from statistics import median
from typing import TypeVar

import torch

from benchmarks.art_adapter import Estimator, RaggedImperceptible
from benchmarks.art_runs import clock, run_art, run_ours
from benchmarks.art_settings import PsychoacousticMasker, Setting
from benchmarks.art_strength import Bout, matched
from robust_asr.attacks.psychoacoustics import masking_thresholds
from robust_asr.randomness import utterance_seeds
from robust_asr.types import AudioBatch

_Key = TypeVar("_Key", bound=Hashable)
# The batch sizes to measure; a batch of all utterances is added.
_SIZES = (1, 4, 16)


def speed(bout: Bout, best: Setting, estimator: Estimator, batch: AudioBatch, *, num: int, repeats: int) -> None:
    """Print the seconds for an iteration of all utterances, in batches of several sizes; ours and ART's take turns."""
    recognizer = estimator.model
    texts = bout.ours.goal.texts(batch, seeds=utterance_seeds(0, batch.ids))
    art = replace(best, iterations=num)
    ours = matched(bout.ours, art)
    sizes = [*(size for size in _SIZES if size < len(batch)), len(batch)]
    contenders: dict[tuple[str, int], Callable[[], float]] = {}
    for size in sizes:
        contenders["ours", size] = lambda size=size: run_ours(ours, recognizer, batch, size=size).seconds_per_iteration
        contenders["ART", size] = lambda size=size: (
            run_art(art, estimator, batch, texts, size=size).seconds_per_iteration
        )
    seconds = rounds(contenders, repeats)
    print(f"\n{bout.family}: seconds an iteration of {len(batch)} utterances, medians of {repeats}; {art}\n")
    print("| batch | ours | ART | ours / ART |\n|---|---|---|---|")
    for size in sizes:
        mine, theirs = seconds["ours", size], seconds["ART", size]
        print(f"| {size} | {median(mine):.3f} | {median(theirs):.3f} | {_ratio(mine, theirs):.2f} |")
    mine, theirs = (min((seconds[side, size] for size in sizes), key=median) for side in ("ours", "ART"))
    print(f"\neach in its best batches: ours / ART {_ratio(mine, theirs):.2f} (at most 1.0)")
    print(f"batch of one / ours in its best: ART's {_ratio(seconds['ART', 1], mine):.1f} (at least 2), ", end="")
    print(f"ours {_ratio(seconds['ours', 1], mine):.1f}", flush=True)


def thresholds(estimator: Estimator, batch: AudioBatch, *, repeats: int) -> None:
    """Print the seconds for masking thresholds: ours for all utterances at once, and ART's two implementations.

    Both of ART's implementations process frames and maskers one after the other.
    """
    rows = [waveform[:length] for waveform, length in zip(batch.waveforms.cpu().numpy(), batch.lengths, strict=True)]
    masker = PsychoacousticMasker(sample_rate=estimator.sample_rate)
    attack = RaggedImperceptible(estimator, batch_size=1, global_max_length=1)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: masking_thresholds(batch.waveforms, batch.lengths, sample_rate=estimator.sample_rate),
        "ART PsychoacousticMasker": lambda: [masker.calculate_threshold_and_psd_maximum(row) for row in rows],
        "ART ImperceptibleASRPyTorch": lambda: [attack._compute_masking_threshold(row)[0] for row in rows],
    }
    timed = {name: lambda contender=contender: _seconds(contender) for name, contender in contenders.items()}
    seconds = rounds(timed, repeats)
    length = float(batch.lengths.sum()) / estimator.sample_rate
    print(f"\nmasking thresholds of {len(batch)} utterances, {length:.0f} s of audio, medians of {repeats}\n")
    print("| | seconds | times ours |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {median(values):.4f} | {_ratio(values, seconds['ours']):.1f} |")
    ours = contenders["ours"]().power.double().log10()
    decibels = {
        "ART PsychoacousticMasker": lambda row: torch.tensor(row[0]).T,
        "ART ImperceptibleASRPyTorch": lambda row: 10 * torch.tensor(row).log10(),
    }
    for name, read in decibels.items():
        theirs = map(read, contenders[name]())
        gap = torch.cat([(10 * row[: len(other)] - other).abs() for row, other in zip(ours, theirs, strict=True)])
        within = 100 * float((gap < 0.1).double().mean())
        print(
            f"{name}: {within:.1f} % of the bins within 0.1 dB of ours, median {float(gap.median()):.1g} dB", flush=True
        )


def rounds(contenders: dict[_Key, Callable[[], float]], repeats: int) -> dict[_Key, list[float]]:
    """The values that each contender returns in each round. All take turns; the first round is a warm-up and does not count."""
    values: dict[_Key, list[float]] = {key: [] for key in contenders}
    for index in range(repeats + 1):
        for key, contender in contenders.items():
            value = contender()
            if index:
                values[key].append(value)
    return values


def _seconds(contender: Callable[[], object]) -> float:
    start = clock()
    contender()
    return clock() - start


def _ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median of the ratio over the rounds."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))
