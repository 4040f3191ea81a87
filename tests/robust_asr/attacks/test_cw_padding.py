"""CW on batches of different lengths: every utterance as if it were alone, whatever its neighbours do."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from robust_asr.attacks.cw import CarliniWagner
from robust_asr.threat.norms import euclidean
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    Breaking,
    Target,
    audio_batch,
    seeds_of,
    spoken,
)
from tests.robust_asr.attacks.test_cw import QUICK, SMALL
from tests.robust_asr.attacks.victims import Scripted, silence, workload
from tests.toys import ToyCTC


def test_padded_batch_equals_alone() -> None:
    # In float64: in float32 a sample whose gradient is within rounding of zero may move either way, and others follow it.
    recognizer, batch = copy.deepcopy(four_words()).double(), spoken(6, seed=5)
    batch = replace(batch, waveforms=batch.waveforms.double())
    assert len(set(batch.lengths.tolist())) > 1
    attack = replace(QUICK, num_iterations=50)
    together = attack(recognizer, batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack(recognizer, batch.select([row]), seeds=seeds_of(batch)[[row]])
        difference = alone.batch.waveforms[0] - together.batch.waveforms[row, :length]
        assert difference.abs().max() < 1e-12 and alone.success[0] == together.success[row]
        assert not together.batch.waveforms[row, length:].any()


def test_padded_batch_is_close_to_alone_in_float32() -> None:
    # Ended before the first look: where a text is just heard, rounding decides whether the whole perturbation shrinks.
    batch, attack = spoken(6, seed=5), replace(QUICK, num_iterations=9)
    together = attack(four_words(), batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack(four_words(), batch.select([row]), seeds=seeds_of(batch)[[row]])
        difference = alone.batch.waveforms[0] - together.batch.waveforms[row, :length]
        assert (difference.abs() > 1e-6).float().mean() < 0.02
        torch.testing.assert_close(alone.loss[0], together.loss[row], rtol=1e-2, atol=1e-2)


def test_padded_batch_equals_alone_exactly_where_the_recogniser_is_exact() -> None:
    batch, wanted = audio_batch([700, 300, 512]), torch.randn(700, generator=torch.Generator().manual_seed(1))
    attack = CarliniWagner(Target(), num_iterations=30, **SMALL)
    victim = Scripted(wanted, [{700: False, 300: False, 512: False}])
    work = workload(victim, batch, attack.goal)
    together = attack.shrink(victim, work)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack.shrink(victim, work.select(torch.tensor([row])))
        assert torch.equal(alone.delta[0], together.delta[row, :length])
        assert not together.delta[row, length:].any()


@pytest.mark.parametrize("length", [1, 320])
def test_silence_and_very_short_audio(length: int) -> None:
    batch = AudioBatch(torch.zeros(2, 4000), torch.tensor([4000, length]), ("GO", "GO"), ("silent", "short"))
    # Of log energies silence has no gradient; a convolution of the waveform has one.
    result = replace(QUICK, num_iterations=20)(ToyCTC().eval(), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all() and result.notes[0] == ""
    assert "does not fit" in result.notes[1] and result.iterations.tolist() == [20, 0]
    assert euclidean(result.batch.waveforms)[0] > 0


def test_a_gradient_that_breaks_stops_its_utterance_only() -> None:
    batch = silence(30, 20)
    batch.waveforms[1, 0] = -0.5
    attack = CarliniWagner(Target(), num_iterations=30, **SMALL | {"check_every": 10})
    result = attack(Breaking(-torch.ones(30), 0.025), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    assert "no longer finite" in result.notes[0] and result.notes[1] == ""
    # 0.03 is beyond the break: three updates, and the next look at update 10 lets go of it.
    assert result.iterations.tolist() == [3, 30]
