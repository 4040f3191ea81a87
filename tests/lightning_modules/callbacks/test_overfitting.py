"""The alarm for catastrophic overfitting in a run: it stops the trainer, and only where both signs are there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_modules.callbacks.overfitting import CatastrophicOverfitting
from robust_asr.types import AudioBatch


class Heard:
    """An attack under which the word errors of each epoch are given."""

    def __init__(self, name: str, *errors: int) -> None:
        self.name, self.errors = name, errors

    def __call__(self, recognizer: Clock, batch: AudioBatch, *, seeds: torch.Tensor) -> SimpleNamespace:
        wrong = self.errors[recognizer.epoch]
        heard = [" ".join(["NO"] * wrong + ["YES"] * (10 - wrong))] * len(batch)
        return SimpleNamespace(hypotheses=heard, compared_references=batch.texts)


class Clock(torch.nn.Module):
    epoch = 0


class Training(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.recognizer, self.weight = Clock(), torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.recognizer.epoch = self.current_epoch
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(pl.LightningDataModule):
    def dataloader_names(self, stage: str) -> list[str]:
        return ["dev"]

    def train_dataloader(self) -> DataLoader:
        batch = AudioBatch(torch.full((1, 80), 0.1), torch.tensor([80]), ("YES " * 9 + "YES",), ("utterance",))
        return DataLoader([batch], batch_size=None)

    val_dataloader = train_dataloader


def epochs_run(strong: tuple[int, ...], single_step: tuple[int, ...], folder: Path) -> int:
    alarm = CatastrophicOverfitting(Heard("PGD", *strong), Heard("FGSM", *single_step), margin=0.05)
    trainer = pl.Trainer(
        max_epochs=len(strong),
        accelerator="cpu",
        callbacks=[alarm],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
    )
    trainer.fit(Training(), datamodule=Data())
    return trainer.current_epoch


def test_strong_rising_while_single_step_falls_warns_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_modules.callbacks.overfitting.rank_zero_warn", said.append)
    assert epochs_run((6, 5, 7, 7, 7), (4, 4, 2, 2, 2), tmp_path) == 3
    (warning,) = said
    assert "under PGD rose from 50.0% to 70.0% while under FGSM it fell from 40.0% to 20.0%" in warning


@pytest.mark.parametrize(
    ("strong", "single_step"),
    [((6, 5, 5, 4), (4, 3, 2, 1)), ((4, 5, 6, 7), (4, 5, 6, 7)), ((7, 6, 6, 6), (2, 3, 2, 1))],
    ids=["both fall", "both rise", "strong stays"],
)
def test_anything_else_goes_on(strong: tuple[int, ...], single_step: tuple[int, ...], tmp_path: Path) -> None:
    assert epochs_run(strong, single_step, tmp_path) == 4
