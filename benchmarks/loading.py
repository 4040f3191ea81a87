"""The speed of loading data beside the speed of DeepSpeech2's training step, both in seconds of audio per second.

``python -m benchmarks.loading [--corpus FOLDER]``.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.corpus import arguments, hardware, manifests
from datamodules import Speech
from robust_asr.models.base import Recognizer
from robust_asr.models.deepspeech2 import DeepSpeech2
from robust_asr.types import AudioBatch


def audio_seconds(batches: list[AudioBatch]) -> float:
    return sum(int(batch.lengths.sum()) for batch in batches) / 16_000


def loading_rate(folder: str, part: str, *, num_workers: int, speed_perturb: bool) -> float:
    data = Speech(
        manifests=folder,
        train=[part],
        validate=[],
        max_duration=60.0,
        num_workers=num_workers,
        speed_perturb=speed_perturb,
    )
    data.setup("fit")
    start = time.perf_counter()
    loaded = list(data.train_dataloader())
    return audio_seconds(loaded) / (time.perf_counter() - start)


def step_rate(recognizer: Recognizer, batches: list[AudioBatch]) -> float:
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-4)
    rates = []
    for batch in batches:
        start = time.perf_counter()
        optimizer.zero_grad()
        recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(batch.texts)).mean().backward()
        optimizer.step()
        rates.append(audio_seconds([batch]) / (time.perf_counter() - start))
    return sorted(rates)[len(rates) // 2]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = manifests(options.corpus, options.part)
    data = Speech(manifests=folder, train=[options.part], validate=[], max_duration=30.0)
    data.setup("fit")
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(options.steps + 1), strict=False)]
    step = step_rate(DeepSpeech2(), batches)
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"\n{hardware()}; manifests {size / 1e3:.0f} kB; audio seconds a second")
    print(f"DeepSpeech2 (full size) training step           {step:8.1f}")
    for speed_perturb in (False, True):
        for num_workers in (0, 2):
            rate = loading_rate(folder, options.part, num_workers=num_workers, speed_perturb=speed_perturb)
            name = f"loading, {num_workers} workers, {'three speeds' if speed_perturb else 'one speed'}"
            print(f"{name:47} {rate:8.1f}   {rate / step:.0f} x the step (at least 10)")


if __name__ == "__main__":
    main()
