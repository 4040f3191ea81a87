"""A language model learns the transcripts of a corpus, and its run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules import Speech, Transcripts
from lightning_modules.command_line.cli import main
from lightning_modules.language_model import LanguageModelTraining
from robust_asr.checkpoint import load_part
from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.text import CharacterTokenizer
from robust_asr.types import AudioBatch
from tests.command_line import curve, final_state, small_config, train, write_config


def config(manifests: Path, run_dir: Path, **overrides: object) -> dict:
    settings = small_config(
        manifests, run_dir, trainer__max_epochs=2, checkpoint__monitor="val/perplexity", **overrides
    )
    network = {"LanguageModel": {"width": 16, "num_layers": 2, "dropout": 0.2}}
    settings["model"] = {"LanguageModelTraining": {"language_model": network, "lr_interval": "step"}}
    settings["data"]["class_path"] = "datamodules.Transcripts"
    settings["checkpoint"]["every_n_steps"] = 1
    return settings


def fit(path: Path, settings: dict, *arguments: str) -> None:
    main(["fit", "--config", str(write_config(path, settings)), *arguments])


@pytest.fixture(scope="module")
def whole(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    fit(folder / "c.yaml", config(tiny_manifests, folder / "run"))
    return folder / "run"


def test_killed_within_an_epoch_and_resumed_is_bit_identical(whole: Path, tiny_manifests: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    kill = [{"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": 1, "batch": 2}}]
    killed = config(tiny_manifests, run_dir, trainer__callbacks=kill)
    assert train("fit", "--config", write_config(tmp_path / "killed.yaml", killed)).returncode != 0
    assert (run_dir / "checkpoints" / "last.ckpt").exists()
    fit(tmp_path / "c.yaml", config(tiny_manifests, run_dir), "--ckpt_path", "last")
    expected, found = final_state(whole), final_state(run_dir)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert curve(run_dir) == curve(whole)


def test_perplexity_is_that_of_the_texts(whole: Path, tiny_manifests: Path) -> None:
    model = load_part(whole / "checkpoints" / "last.ckpt", LANGUAGE_MODEL, LanguageModel)
    data = Speech(str(tiny_manifests), train=["train"], validate=["dev"])
    texts = [text for part, _, text in data.texts("fit") if part == "dev"]
    targets = model.targets(texts)
    expected = (model.loss(targets).detach().sum() / (targets.token_lengths + 1).sum()).exp()
    rows = [float(row["val/dev/perplexity"]) for row in curve(whole) if row["val/dev/perplexity"]]
    assert rows[-1] == pytest.approx(float(expected), rel=1e-4) and rows[-1] < rows[0]
    assert (whole / "checkpoints" / "best.ckpt").exists()


def test_loss_is_the_mean_over_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModelTraining, "trainer", SimpleNamespace(world_size=1))
    training = LanguageModelTraining(LanguageModel(width=4, num_layers=1, dropout=0.0))
    training.log = lambda *args, **kwargs: None
    texts = ("YES", "", "GO ON")
    batch = AudioBatch(torch.zeros(3, 0), torch.zeros(3, dtype=torch.long), texts, ("a", "b", "c"))
    losses = training.language_model.loss(training.language_model.targets(texts))
    torch.testing.assert_close(training.training_step(batch, 0), losses.sum() / (4 + 1 + 6))


def test_a_loss_that_is_not_finite_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModelTraining, "trainer", SimpleNamespace(world_size=1))
    monkeypatch.setattr(LanguageModelTraining, "current_epoch", 0)
    training = LanguageModelTraining(LanguageModel(width=4, num_layers=1))
    torch.nn.init.constant_(training.language_model.head.bias, torch.inf)
    batch = AudioBatch(torch.zeros(1, 0), torch.zeros(1, dtype=torch.long), ("YES",), ("a",))
    with pytest.raises(FloatingPointError, match="not finite in epoch 0, batch 3"):
        training.training_step(batch, 3)


def test_texts_that_cannot_be_written_are_named_before_the_first_step(tiny_manifests: Path, tmp_path: Path) -> None:
    settings = config(tiny_manifests, tmp_path / "run")
    tokenizer = {"CharacterTokenizer": CharacterTokenizer("YESNOG "[::-1]).characters}
    settings["model"]["LanguageModelTraining"]["language_model"]["LanguageModel"]["tokenizer"] = tokenizer
    with pytest.raises(SystemExit):
        fit(tmp_path / "c.yaml", settings)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_transcripts_are_those_of_speech_without_its_audio(tiny_manifests: Path) -> None:
    batches = []
    for kind in (Speech, Transcripts):
        data = kind(str(tiny_manifests), train=["train"], validate=["dev"], max_duration=8.0)
        data.setup("fit")
        batches.append([*data.train_dataloader(), *data.val_dataloader()[0]])
    for heard, read in zip(*batches, strict=True):
        assert (heard.texts, heard.ids) == (read.texts, read.ids) and read.waveforms.shape == (len(read), 0)


@pytest.mark.parametrize("wrong", [{"speed_perturb": True}, {"shar": True}])
def test_what_only_audio_has_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="shar and speed_perturb must be false"):
        Transcripts("data", train=["train"], **wrong)
