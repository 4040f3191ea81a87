"""Two recognisers that have learnt a few words, their weights kept beside the tests.

What a network learns in seconds differs from one processor's rounding to the next, and so did the tests that rest on it. Now
all read the same weights, 16 bits each, in ``listeners/``. ``python -m tests.listeners`` learns them again, after a change of
architecture or of the audio; ``tests/test_listeners.py`` then says whether they still hear what the tests rest on.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from robust_asr.models.compact import CompactCTC
from robust_asr.types import AudioBatch

FOLDER = Path(__file__).with_name("listeners")
SMALL = {"num_mels": 20, "stem_channels": 4, "width": 24, "num_blocks": 1, "gru_width": 24, "dropout": 0.05}
# With a floor so high, attacks have to change what is said and not the pauses.
SIZES = {"four_words": SMALL, "five_words": SMALL | {"energy_floor": 1.0}}


@cache
def four_words() -> CompactCTC:
    """Hears ``tests.robust_asr.attacks.oracles.spoken``."""
    return read("four_words")


@cache
def five_words() -> CompactCTC:
    """Hears ``tests.robust_asr.checks.honest.spoken``."""
    return read("five_words")


def read(name: str) -> CompactCTC:
    recognizer = CompactCTC(**SIZES[name])
    recognizer.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    return recognizer.eval()


def learnt(name: str, batch: AudioBatch, *, num_steps: int = 500, noise: float, confidence: float) -> CompactCTC:
    """Of audio with Gaussian noise of that amplitude, in under a minute.

    ``confidence`` scales the scores: below 1 the same is heard, but clean audio has a loss that is no rounding of zero, and
    a slope.
    """
    torch.manual_seed(0)
    recognizer = CompactCTC(**SIZES[name]).train()
    recognizer.spec_augment.eval()
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / num_steps)) + 1e-3)
    for _ in range(num_steps):
        part = batch.select(torch.randperm(len(batch))[:16])
        noisy = part.waveforms + noise * torch.randn_like(part.waveforms)
        optimizer.zero_grad()
        recognizer.loss(noisy, part.lengths, recognizer.targets(part.texts)).mean().backward()
        nn.utils.clip_grad_norm_(recognizer.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for parameter in recognizer.head.parameters():
            parameter *= confidence
    return recognizer.eval()


def write() -> None:
    from tests.robust_asr.attacks import oracles
    from tests.robust_asr.checks import honest

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name, batch, recipe in (
        ("four_words", oracles.spoken(256), {"noise": 0.03, "confidence": 1.0}),
        ("five_words", honest.spoken(400, seed=7), {"noise": 0.01, "confidence": 0.25}),
    ):
        state = learnt(name, batch, **recipe).state_dict()
        halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        (FOLDER / f"{name}.safetensors").write_bytes(save(halves))


if __name__ == "__main__":
    sys.exit(write())
