"""A radius of its own for each utterance: a share of a ball is a ball."""

from __future__ import annotations

import pytest
import torch

from robust_asr.threat import L2, SNR, Ball, Linf
from robust_asr.threat.shares import OwnShare
from tests.robust_asr.attacks.oracles import audio_batch, seeds_of


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0), SNR(10.0)], ids=str)
def test_a_share_of_a_ball_is_a_ball(ball: Ball) -> None:
    batch = audio_batch((50, 30))
    own = OwnShare(ball, {batch.ids[0]: 1.0, batch.ids[1]: 0.5})
    assert torch.allclose(own.radius(batch), ball.radius(batch) * torch.tensor([1.0, 0.5]))
    assert own.norm == ball.norm and own.default_step_factor == ball.default_step_factor
    delta = own.random(batch, seeds_of(batch))
    assert bool(own.contains(batch.waveforms + delta, batch).all())
    whole = ball.project(10 * delta, batch)
    assert own.contains(batch.waveforms + whole, batch).tolist() == [True, False]
    assert torch.equal(own.size(delta, batch), ball.size(delta, batch)) and own.columns() == ball.columns()
    assert bool(own.defined(batch).all())
