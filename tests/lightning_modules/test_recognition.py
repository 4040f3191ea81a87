"""The training step against closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_modules.gaussian import GaussianAugmentation
from lightning_modules.recognition import Recognition
from robust_asr.models.compact import CompactCTC
from robust_asr.types import AudioBatch


class FakeTrainer:
    world_size = 1


def batch_of(*texts: str, seconds: float = 1.0) -> AudioBatch:
    torch.manual_seed(0)
    size = int(16_000 * seconds)
    lengths = torch.tensor([size - 1_000 * row for row in range(len(texts))])
    waveforms = 0.1 * torch.randn(len(texts), size)
    waveforms[torch.arange(size) >= lengths[:, None]] = 0
    return AudioBatch(waveforms, lengths, texts, tuple(f"utterance-{row}" for row in range(len(texts))))


def module(kind: type[Recognition] = Recognition, **arguments: float) -> Recognition:
    torch.manual_seed(1)
    built = kind(CompactCTC(), **arguments)
    built.log = lambda *args, **kwargs: None
    built._trainer = FakeTrainer()
    built.recognizer.eval()
    return built


@pytest.fixture(autouse=True)
def outside_a_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recognition, "trainer", property(lambda self: self._trainer))
    monkeypatch.setattr(Recognition, "current_epoch", property(lambda self: getattr(self, "epoch", 0)))


def test_loss_is_the_mean_over_utterances() -> None:
    training = module()
    batch = batch_of("YES", "NO", "GO ON")
    losses = training.recognizer.loss(batch.waveforms, batch.lengths, training.recognizer.targets(batch.texts))
    torch.testing.assert_close(training.training_step(batch, 0), losses.mean())


def test_text_longer_than_the_frames_is_left_out_and_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    training = module()
    batch = batch_of("YES", "A VERY LONG SENTENCE " * 20)
    losses = training.recognizer.loss(batch.waveforms, batch.lengths, training.recognizer.targets(batch.texts))
    torch.testing.assert_close(training.training_step(batch, 0), losses[0])
    training.training_step(batch, 1)
    printed = capsys.readouterr().out
    assert printed.count("utterance-1") == 1
    assert "utterance-0" not in printed


def test_a_batch_without_a_feasible_utterance_has_zero_gradient() -> None:
    training = module()
    training.training_step(batch_of("A VERY LONG SENTENCE " * 20), 0).backward()
    assert all(not parameter.grad.any() for parameter in training.parameters() if parameter.grad is not None)


def test_non_finite_loss_names_the_utterances() -> None:
    training = module()
    batch = batch_of("YES", "NO")
    waveforms = batch.waveforms.clone()
    waveforms[1, 100] = torch.nan
    with pytest.raises(FloatingPointError, match="utterance-1") as error:
        training.training_step(batch.replace(waveforms), 3)
    assert "utterance-0" not in str(error.value)


def test_gaussian_noise_has_the_asked_deviation_and_stays_out_of_the_padding() -> None:
    training = module(GaussianAugmentation, sigma_min=0.02, sigma_max=0.02)
    batch = batch_of("YES", "NO", seconds=4.0)
    noise = training.perturb(batch).waveforms - batch.waveforms
    for row, length in enumerate(batch.lengths.tolist()):
        assert noise[row, :length].std().item() == pytest.approx(0.02, rel=4 / (2 * length) ** 0.5)
        assert not noise[row, length:].any()


def test_gaussian_sigma_is_uniform_per_utterance_and_epoch() -> None:
    training = module(GaussianAugmentation, sigma_max=0.3)
    batch = batch_of(*["YES"] * 8, seconds=1.0)
    sigmas = []
    for training.epoch in range(25):
        noise = training.perturb(batch).waveforms - batch.waveforms
        sigmas += [noise[row, :length].std().item() for row, length in enumerate(batch.lengths.tolist())]
    ordered = torch.tensor(sigmas).sort().values
    expected = 0.3 * (torch.arange(200) + 0.5) / 200
    assert (ordered - expected).abs().max() < 0.3 * 1.63 / 200**0.5, "Kolmogorov-Smirnov at one per cent"


def test_gaussian_noise_is_keyed_by_utterance_not_by_batch() -> None:
    training = module(GaussianAugmentation, sigma_max=0.1)
    batch = batch_of("YES", "NO", "GO")
    together = training.perturb(batch).waveforms
    for row in range(3):
        alone = batch.select([row])
        torch.testing.assert_close(
            training.perturb(alone).waveforms[0], together[row, : alone.waveforms.shape[1]], rtol=0, atol=0
        )
    training.epoch = 1
    assert not torch.equal(training.perturb(batch).waveforms, together)


@pytest.mark.parametrize("sigmas", [(-0.1, 0.1), (0.2, 0.1), (0.0, float("nan"))])
def test_gaussian_range_is_checked(sigmas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sigma_min and sigma_max"):
        GaussianAugmentation(CompactCTC(), sigma_min=sigmas[0], sigma_max=sigmas[1])


def test_texts_that_cannot_be_written_are_one_sentence_before_the_first_step() -> None:
    training = module()
    told = [("train", f"1-1-{index}", text) for index, text in enumerate(["GOOD", *["NUMBER 5"] * 6, "WELL-KNOWN"])]
    training._trainer.datamodule = SimpleNamespace(texts=lambda stage: [*told, ("dev", "9-1-0", "Mr. 5")])
    message = (
        r"the recogniser cannot write 8 of the texts \('5' in 7, '-' in 1, '\.' in 1\): "
        "train: 1-1-1, 1-1-2, 1-1-3, 1-1-4, 1-1-5 and 2 others; dev: 9-1-0; "
    )
    with pytest.raises(ValueError, match=message):
        training.on_fit_start()
    training._trainer.datamodule = SimpleNamespace(texts=lambda stage: told[:1])
    training.on_fit_start()
