"""The seconds of an attack's iteration beside a bare loop that does nothing but gradients and steps.

``OMP_NUM_THREADS=1 python -m benchmarks.attack_iteration CHECKPOINT``: the same iterations, in turns in one process, in batches of
1, 8 and 24 utterances of a part of any manifests.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.corpus import hardware, one_batch
from benchmarks.turns import median_ratio, seconds_of
from robust_asr import checkpoint
from robust_asr.attacks.base import Attack
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch

_SIZES = (1, 8, 24)
_EPS = 3e-4


def bare_loop(recognizer: Recognizer, batch: AudioBatch, iterations: int) -> None:
    """Signs of the loss's gradient, and the transcripts in the end."""
    targets, waveforms = recognizer.targets(batch.texts), batch.waveforms
    with frozen_for_attack(recognizer):
        for _ in range(iterations):
            _, slope = input_gradient(lambda values: recognizer.loss(values, batch.lengths, targets), waveforms)
            delta = (waveforms + 0.2 * _EPS * slope.sign() - batch.waveforms).clamp(-_EPS, _EPS)
            waveforms = (batch.waveforms + masked(delta, batch.lengths)).clamp(-1, 1)
        recognizer.transcribe(waveforms, batch.lengths)


def attacks(iterations: int) -> dict[str, Attack]:
    """The papers' attack, and the default, which raises loss and margin and compares its perturbations once here."""
    ball = Linf(_EPS)
    return {
        "PaperPGD": PaperPGD(ball, num_iterations=iterations),
        "PGD": PGD(ball, num_iterations=iterations, check_every=iterations),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--manifests", default="data/numbers")
    parser.add_argument("--part", default="dev")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    recognizer = checkpoint.load(options.checkpoint).eval()
    batch = one_batch(options.manifests, options.part, max(_SIZES))
    print(
        f"{hardware()}; {options.iterations} iterations, CPU seconds an utterance and iteration, medians of {options.repeats}"
    )
    print("| attack | batch | ours | bare loop | ours / bare loop |\n|---|---|---|---|---|")
    for size in _SIZES:
        part = batch.select(torch.linspace(0, len(batch) - 1, size).long())
        seeds = utterance_seeds(0, part.ids)
        for name, attack in attacks(options.iterations).items():
            measured = seconds_of(
                {
                    "ours": lambda attack=attack, part=part, seeds=seeds: attack(recognizer, part, seeds=seeds),
                    "bare": lambda part=part: bare_loop(recognizer, part, options.iterations),
                },
                repeats=options.repeats,
            )
            ours, bare = (
                sorted(measured[side])[len(measured[side]) // 2] / size / options.iterations for side in measured
            )
            print(
                f"| {name} | {size} | {ours:.4f} | {bare:.4f} | {median_ratio(measured, 'ours', 'bare'):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
