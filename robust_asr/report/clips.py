"""The audio that an evaluation kept of an utterance, as a page carries it: players and spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robust_asr.report.audio import compressed_uri
from robust_asr.report.markup import data_uri, escaped
from robust_asr.report.numbers import strength
from robust_asr.report.spectrogram import RANGE_DB, levels, png, power_spectrogram
from robust_asr.storage.audio import SAMPLE_RATES, as_float, measured

MAX_SECONDS = 15.0


@dataclass(frozen=True)
class Clip:
    """Shape: waveform (T,). Units: sample_rate in Hz; ``cut_at`` in seconds, None where the clip is whole."""

    waveform: Tensor
    sample_rate: int
    cut_at: float | None


def read_clip(path: Path, folder: Path) -> Clip | None:
    """The first ``MAX_SECONDS`` of an audio file of ``folder``, None where there is no such file.

    Errors: ValueError names a file that is not mono, that is damaged, or that leads out of the folder.
    """
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of {folder}")
    try:
        header, samples = measured(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if header.sample_rate not in SAMPLE_RATES:
        raise ValueError(
            f"{path}: has the odd rate {header.sample_rate}; accepted are {', '.join(map(str, SAMPLE_RATES))}"
        )
    waveform = torch.from_numpy(as_float(samples))
    num_kept = int(MAX_SECONDS * header.sample_rate)
    return Clip(waveform[:num_kept], header.sample_rate, MAX_SECONDS if len(waveform) > num_kept else None)


def player(name: str, clip: Clip) -> str:
    """A player under its name."""
    return (
        f'<div class="player"><span class="aside">{escaped(name)}</span>'
        f'<audio controls preload="none" aria-label="{escaped(name)}" src="{compressed_uri(clip.waveform, clip.sample_rate)}">'
        "</audio></div>"
    )


def spectrograms(clips: dict[str, Clip]) -> str:
    """The clips and, of two of one length, their difference: all on one scale, the loudest place of the first on top."""
    powers = {name: power_spectrogram(clip.waveform, sample_rate=clip.sample_rate) for name, clip in clips.items()}
    first, *others = clips.values()
    if others and others[0].waveform.shape == first.waveform.shape and others[0].sample_rate == first.sample_rate:
        change = others[0].waveform - first.waveform
        powers["difference"] = power_spectrogram(change, sample_rate=first.sample_rate)
    loudest = float(next(iter(powers.values())).max())
    top, length = strength(first.sample_rate / 2000), len(first.waveform) / first.sample_rate
    images = "".join(
        f'<figure><img alt="{escaped(_in_words(name, power, loudest, top, length))}" '
        f'src="{data_uri("image/png", png(levels(power, loudest=loudest)))}">'
        f"{f'<figcaption>{escaped(name)}</figcaption>' if len(powers) > 1 else ''}</figure>"
        for name, power in powers.items()
    )
    scale = f"0 to {top} kHz from the bottom up, {length:.1f} s; {RANGE_DB:.0f} dB down from the loudest place of the clean audio"
    return f'<div class="spectrograms">{images}</div><p class="aside">{scale if len(powers) > 1 else ""}</p>'


def _in_words(name: str, power: Tensor, loudest: float, top: str, length: float) -> str:
    mean = 10 * torch.log10(power.mean().clamp(min=1e-30) / max(loudest, 1e-30))
    return f"Spectrogram, {name}: {length:.1f} s, up to {top} kHz, on average {-float(mean):.0f} dB below the loudest place"
