"""What is not finite is never saved, never the best, and never read."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.callbacks.checkpoint_io import SafeCheckpointIO
from lightning_modules.callbacks.checkpoints import Checkpoints
from robust_asr.checkpoint import load, load_weights, save
from robust_asr.models.compact import CompactCTC
from robust_asr.storage import sealed


class Measured(pl.LightningModule):
    """Its validations give the values that it is told, and after some step its weights are broken."""

    def __init__(self, values: list[float], broken_at: int = 99) -> None:
        super().__init__()
        self.values, self.broken_at = values, broken_at
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("impossible", torch.tensor([-torch.inf]))

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1)).sum()

    def on_train_batch_start(self, *args):
        if self.global_step == self.broken_at:
            self.layer.weight.data.fill_(float("inf"))

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.values[self.current_epoch], batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Measured, folder: Path, mode: str = "min") -> None:
    loader = torch.utils.data.DataLoader(range(2))
    pl.Trainer(
        accelerator="cpu",
        max_epochs=len(module.values),
        callbacks=Checkpoints(every_n_steps=1, monitor="val/loss", mode=mode).callbacks(folder),
        plugins=[SafeCheckpointIO()],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader, loader)


def epoch(path: Path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


@pytest.mark.parametrize("broken", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_no_value_that_is_not_finite_is_the_best(broken: str, mode: str, tmp_path: Path) -> None:
    fit(Measured([float(broken), 3.0, float(broken)]), tmp_path, mode)
    assert epoch(tmp_path / "best.ckpt") == 1 and epoch(tmp_path / "last.ckpt") == 2


def test_where_nothing_is_finite_nothing_is_the_best(tmp_path: Path) -> None:
    fit(Measured([float("nan")]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_broken_weights_are_not_saved_and_the_last_good_ones_stay(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"layer\.weight are not finite after 4 steps"):
        fit(Measured([1.0, 0.5], broken_at=3), tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    assert epoch(tmp_path / "best.ckpt") == 0


def test_a_file_of_broken_weights_is_refused(tmp_path: Path) -> None:
    recognizer = CompactCTC(width=16, gru_width=8, stem_channels=4, num_blocks=1)
    recognizer.head.weight.data[0, 0] = float("nan")
    save(recognizer, tmp_path / "broken.ckpt")
    for read in (load, lambda path: load_weights(recognizer, path)):
        with pytest.raises(ValueError, match=r"weights head\.weight are not finite"):
            read(str(tmp_path / "broken.ckpt"))
    sealed.write({"state_dict": {"layer": torch.tensor([float("nan")])}}, tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="layer are not finite; no run goes on"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "run.ckpt")
