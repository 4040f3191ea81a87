"""The denoiser as a defence: part of the system that is attacked, described, saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robust_asr import checkpoint
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.checkpoint import weights_hash
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.threat import Linf
from tests.robust_asr.attacks.oracles import audio_batch, seeds_of
from tests.toys import ToyCTC

LENGTHS = (8000, 4801, 1600)
TINY = {"num_filters": 12, "num_feats": 6, "num_hidden": 10, "num_layers": 5, "num_stacks": 2}


def defended(recognizer: nn.Module | None = None) -> Defended:
    torch.manual_seed(0)
    return Defended(Denoise(ConvTasNet(**TINY)), recognizer or ToyCTC()).eval()


def test_every_utterance_is_treated_alone() -> None:
    system, batch = defended(), audio_batch(LENGTHS)
    found, lengths = system.defense(batch.waveforms, batch.lengths)
    assert torch.equal(lengths, batch.lengths) and system.padding_invariant and not system.stochastic
    for row, length in enumerate(LENGTHS):
        part = batch.select([row])
        alone, _ = system.defense(part.waveforms, part.lengths)
        torch.testing.assert_close(found[row, :length], alone[0], rtol=1e-4, atol=1e-6)
        assert not found[row, length:].any()


def test_attack_goes_through_the_denoiser() -> None:
    system, batch = defended(), replace(audio_batch(LENGTHS), texts=("A", "B", "C"))
    before = weights_hash(system)
    targets = system.targets(batch.texts)

    def loss(view: Recognizer, waveforms: Tensor) -> Tensor:
        return view.loss(waveforms, batch.lengths, targets)

    views = [system.view(knowledge) for knowledge in ("exact", "straight_through")]
    exact, straight = (input_gradient(partial(loss, view), batch.waveforms)[1] for view in views)
    assert exact.any() and not torch.equal(exact, straight)
    result = PaperPGD(Linf(1e-3), num_iterations=3)(system, batch, seeds=seeds_of(batch))
    clean = loss(system, batch.waveforms)
    assert (result.loss > clean.detach()).all()
    assert weights_hash(system) == before
    assert system.columns() == {"model": "ToyCTC", "defense": "Denoiser", "sigma": ""}


def test_denoiser_and_recogniser_are_one_checkpoint(tmp_path: Path) -> None:
    system = defended(CompactCTC(width=16, gru_width=8, stem_channels=4, num_blocks=1))
    checkpoint.save(system, tmp_path / "tandem.ckpt")
    loaded = checkpoint.load(str(tmp_path / "tandem.ckpt"))
    assert isinstance(loaded, Defended) and isinstance(loaded.defense, Denoise)
    assert weights_hash(loaded) == weights_hash(system)
    batch = audio_batch(LENGTHS)
    targets = system.targets(("A", "B", "C"))
    losses = [each.loss(batch.waveforms, batch.lengths, targets) for each in (system, loaded)]
    assert torch.equal(*losses)


def test_a_network_that_changes_the_length_is_refused() -> None:
    class Half(nn.Module):
        def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            return waveforms[:, ::2]

    batch = audio_batch(LENGTHS)
    with pytest.raises(ValueError, match="number of samples"):
        Denoise(Half())(batch.waveforms, batch.lengths)
