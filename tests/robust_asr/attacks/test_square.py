"""Queries without a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.square import Square
from robust_asr.threat import L2, SNR, Ball, Linf, Unbounded
from robust_asr.threat.norms import euclidean
from robust_asr.types import Status
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    BALLS,
    SIZES,
    Linear,
    attacked,
    attained,
    audio_batch,
    seeds_of,
    spoken,
    weights,
)


class Cut(Linear):
    """Its scores do not depend on the audio by operations that torch can differentiate."""

    stochastic = False

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return super().value(waveforms.detach(), lengths, seeds)


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_it_fills_the_ball_and_needs_no_gradient(threat: Ball) -> None:
    batch, recognizer = audio_batch(SIZES), Cut(weights())
    result = Square(threat, num_queries=12)(recognizer, batch, seeds=seeds_of(batch))
    delta = result.batch.waveforms - batch.waveforms
    size = delta.abs().amax(1) if threat.norm == "linf" else euclidean(delta)
    torch.testing.assert_close(size, threat.radius(batch), rtol=1e-4, atol=1e-7)
    assert set(result.status) == {Status.ATTACKED}
    # A look at the end costs the loss and the transcript.
    assert result.forwards.tolist() == [12 + 2] * 3 and result.iterations.tolist() == [12] * 3
    with pytest.raises(ValueError, match="no gradient of the loss reaches the audio"):
        PaperPGD(threat)(recognizer, batch, seeds=seeds_of(batch))


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_the_value_never_falls_and_utterances_are_alone(threat: Ball) -> None:
    batch, recognizer = audio_batch((500, 300, 40)), Linear(weights())
    gains = [attained(Square(threat, num_queries=num), recognizer, batch) for num in (1, 80)]
    assert all(many > few for few, many in zip(*gains, strict=True)) and min(gains[1]) > 0
    together = attacked(Square(threat, num_queries=20), recognizer, batch)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attacked(Square(threat, num_queries=20), recognizer, batch.select([row]))[0]
        torch.testing.assert_close(alone, together[row, :length], rtol=0, atol=1e-6)
        assert not together[row, length:].any()


def test_going_on_starts_from_what_was_found() -> None:
    batch, recognizer, attack = audio_batch((500, 40)), Cut(weights()), Square(Linf(0.01), num_queries=10)
    targets, seeds = recognizer.targets(batch.texts), seeds_of(batch)
    first = attack.search(recognizer, batch, targets, seeds=seeds)
    second = attack.search(recognizer, batch, targets, seeds=seeds, start=first.state.delta)
    before, after = (
        recognizer.value(batch.waveforms + found.state.delta, batch.lengths, None) for found in (first, second)
    )
    assert bool((after >= before).all()) and bool((after > before).any())
    # One pass for the value of the start.
    assert second.state.forwards.tolist() == [1 + 10 + 2] * 2


def test_tones_are_of_the_recognisers_sample_rate() -> None:
    batch, changes = audio_batch((4000,) * 3), []
    for sample_rate in (16_000, 8_000):
        recognizer = Linear(weights(4000))
        recognizer.sample_rate = sample_rate
        delta = attacked(Square(Linf(0.01), num_queries=1), recognizer, batch) - batch.waveforms
        changes.append((delta.sign().diff(dim=1) != 0).sum(1).double())
    torch.testing.assert_close(changes[1], 2 * changes[0], rtol=0.01, atol=4)
    # From 100 to 4000 hertz, in a quarter of a second.
    assert float(changes[0].min()) >= 50 - 2 and float(changes[0].max()) <= 2000 + 2


def test_it_beats_noise() -> None:
    batch, recognizer = spoken(6, seed=5), four_words()
    found, noise = (
        attack(recognizer, batch, seeds=seeds_of(batch)).success.sum()
        for attack in (Square(Linf(0.02), num_queries=80), MatchedNoise(Linf(0.02), distribution="signs"))
    )
    assert found >= noise + 2


def test_wrong_settings_are_refused_and_the_name_says_the_queries() -> None:
    assert Square(Linf(0.01)).name == "square-100" and Square(SNR(20.0), num_queries=7).name == "square-7"
    with pytest.raises(ValueError, match="threat must be a ball"):
        Square(Unbounded())
    with pytest.raises(ValueError, match="num_queries must lie in"):
        Square(Linf(0.01), num_queries=0)
    with pytest.raises(ValueError, match=r"objective must be an object .*, found 'Loss'"):
        Square(Linf(0.01), objective="Loss")
