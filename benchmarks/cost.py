"""Cost against utterance length and batch size: a table, and a plot beside it.

``python -m benchmarks.cost [--out benchmarks/cost.png]``: the milliseconds of a training step for each second of audio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from benchmarks.corpus import hardware
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.models.deepspeech2 import DeepSpeech2

LENGTHS = (1, 2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8, 16)


def milliseconds(recognizer: Recognizer, *, seconds: int, batch: int, repeats: int = 3) -> float:
    """The median time of a forward and backward pass, divided by the seconds of audio."""
    waveforms = 0.1 * torch.randn(batch, seconds * 16_000)
    lengths = torch.full((batch,), seconds * 16_000)
    targets = recognizer.targets(["A"] * batch)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        recognizer.loss(waveforms, lengths, targets).mean().backward()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:]) / (seconds * batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cost.png"))
    options = parser.parse_args()
    small = {"conv_channels": 8, "rnn_hidden": 256, "rnn_layers": 3}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for name, recognizer in {"CompactCTC": CompactCTC(), "DeepSpeech2, 3 x 256": DeepSpeech2(**small)}.items():
        by_length = [milliseconds(recognizer, seconds=seconds, batch=1) for seconds in LENGTHS]
        by_batch = [milliseconds(recognizer, seconds=4, batch=batch) for batch in BATCHES]
        print(f"{name}: length " + ", ".join(f"{x} s {y:.1f}" for x, y in zip(LENGTHS, by_length, strict=True)))
        print(f"{name}: batch of 4 s " + ", ".join(f"{x}: {y:.1f}" for x, y in zip(BATCHES, by_batch, strict=True)))
        axes[0].plot(LENGTHS, by_length, marker="o", label=name)
        axes[1].plot(BATCHES, by_batch, marker="o", label=name)
    axes[0].set(xscale="log", yscale="log", xlabel="utterance (s), batch of 1", ylabel="ms an audio second")
    axes[1].set(xscale="log", xlabel="utterances of 4 s in a batch")
    for axis, places in zip(axes, (LENGTHS, BATCHES), strict=True):
        axis.grid(alpha=0.3)
        axis.set_xticks(places, map(str, places))
        axis.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    figure.suptitle(f"Forward and backward pass ({hardware()})", fontsize=9)
    figure.tight_layout()
    figure.savefig(options.out, dpi=130)
    print(f"plot in {options.out}; {hardware()}")


if __name__ == "__main__":
    main()
