"""What the committed listeners hear: everything else that asks them rests on it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from robust_asr.types import AudioBatch
from tests.listeners import FOLDER, five_words, four_words
from tests.robust_asr.attacks import oracles
from tests.robust_asr.checks import honest


@pytest.mark.parametrize(
    ("listener", "batch"),
    [
        (four_words, oracles.spoken(24, seed=5)),
        (four_words, oracles.spoken(5)),
        (four_words, oracles.spoken(5, seed=3)),
        (four_words, oracles.spoken(3, seed=4)),
        (five_words, honest.spoken(10, seed=1)),
        (five_words, honest.spoken(8, seed=2)),
        (five_words, honest.spoken(3, seed=3)),
    ],
)
def test_all_that_tests_say_is_heard_with_room_to_spare(listener: Callable, batch: AudioBatch) -> None:
    """Also with weights off by a hundredth, where processors differ by a millionth."""
    recognizer = deepcopy(listener())
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight, exact in zip(recognizer.parameters(), listener().parameters(), strict=True):
                weight.copy_(exact * (1 + 0.01 * torch.randn(exact.shape, generator=generator)))
        heard = recognizer.transcribe(batch.waveforms, batch.lengths)
        assert [transcript.text for transcript in heard] == list(batch.texts)


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 60_000
