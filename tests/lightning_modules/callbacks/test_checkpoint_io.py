from __future__ import annotations

import os
import shutil

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, Timer

from lightning_modules.callbacks.checkpoint_io import SafeCheckpointIO, find_resumable, read_metadata
from robust_asr import checkpoint
from robust_asr.storage import sealed
from tests.robust_asr import forgery


class Toy(pl.LightningModule):
    """Trains a tiny recogniser's head on noise: only what it saves matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.recognizer = forgery.tiny()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.recognizer.head(batch[0]).square().mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/wer", self.recognizer.head(batch[0]).square().mean())

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedulers = [
            torch.optim.lr_scheduler.LinearLR(optimizer),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        ]
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, milestones=[2]),
        }

    def on_save_checkpoint(self, checkpoint_: dict) -> None:
        checkpoint_.update(checkpoint.metadata({"recognizer": ("recognizer.", self.recognizer)}))
        checkpoint_["config"] = "trainer:\n  max_epochs: 2\n"


class Noise(pl.LightningDataModule):
    def train_dataloader(self) -> torch.utils.data.DataLoader:
        data = torch.utils.data.TensorDataset(
            torch.randn(8, 3, forgery.tiny().head.in_features, generator=torch.Generator().manual_seed(1))
        )
        return torch.utils.data.DataLoader(data, batch_size=2)

    val_dataloader = train_dataloader

    def state_dict(self) -> dict:
        return {"epoch": 1, "seen": [1, 2]}


def trainer_of(run_dir, max_epochs: int, **settings) -> pl.Trainer:
    best = ModelCheckpoint(run_dir / "checkpoints", filename="best", monitor="val/wer", save_last=True)
    return pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=run_dir,
        plugins=[SafeCheckpointIO()],
        callbacks=[best, EarlyStopping("val/wer", patience=9), EMAWeightAveraging(decay=0.5), Timer()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    trainer_of(run_dir, 2).fit(Toy(), Noise())
    return run_dir


@pytest.fixture
def run_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_a_training_checkpoint_loads_as_its_recogniser_with_averaged_weights(run_dir):
    path = run_dir / "checkpoints" / "last.ckpt"
    content = sealed.read(path)
    averaged, current = content["state_dict"], content["current_model_state"]
    assert not torch.equal(averaged[forgery.HEAD], current[forgery.HEAD])
    loaded = checkpoint.load(str(path))
    assert torch.equal(loaded.head.weight, averaged[forgery.HEAD])
    assert content[checkpoint.KEY]["parts"]["recognizer"]["weights_hash"] == checkpoint.weights_hash(loaded)


def test_training_goes_on_from_it(run_dir):
    trainer = trainer_of(run_dir, 4)
    trainer.fit(Toy(), Noise(), ckpt_path=str(find_resumable(run_dir)))
    assert trainer.global_step == 16
    assert sealed.read(find_resumable(run_dir))["global_step"] == 16


def test_every_strategy_saves_through_the_plugin():
    for strategy in ("auto", "ddp", "ddp_spawn"):
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, strategy=strategy, plugins=[SafeCheckpointIO()], logger=False
        )
        assert isinstance(trainer.strategy.checkpoint_io, SafeCheckpointIO)


def test_unpickling_is_never_switched_on(run_dir):
    path = str(find_resumable(run_dir))
    with pytest.raises(ValueError, match="weights_only=False"):
        trainer_of(run_dir, 4).fit(Toy(), Noise(), ckpt_path=path, weights_only=False)
    with pytest.raises(ValueError, match="URLs are refused"):
        trainer_of(run_dir, 4).fit(Toy(), Noise(), ckpt_path="https://example.com/x.ckpt")


def test_a_damaged_checkpoint_stops_a_resume(run_dir):
    path = run_dir / "checkpoints" / "last.ckpt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        trainer_of(run_dir, 4).fit(Toy(), Noise(), ckpt_path=str(path))


def test_a_state_that_could_not_be_read_back_is_named_when_it_is_saved(tmp_path):
    with pytest.raises(ValueError, match=r"holds builtins\.object|tensors and plain data only"):
        SafeCheckpointIO().save_checkpoint({"state": {1, 2}}, tmp_path / "x.ckpt")


def test_only_what_lies_beside_a_saved_file_is_removed(tmp_path):
    plugin = SafeCheckpointIO()
    (tmp_path / "precious.txt").write_text("x")
    for path in (tmp_path / "precious.txt", tmp_path):
        with pytest.raises(ValueError, match="not removed"):
            plugin.remove_checkpoint(path)
    plugin.save_checkpoint({"global_step": 1}, tmp_path / "run" / "a.ckpt")
    for path in (tmp_path / "run" / ".." / "precious.txt", tmp_path / "run"):
        with pytest.raises(ValueError, match="not removed"):
            plugin.remove_checkpoint(path)
    for _ in range(2):
        plugin.remove_checkpoint(tmp_path / "run" / "a.ckpt")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["precious.txt", "run"]


def write_step(path, step: int, time: int) -> None:
    sealed.write({"global_step": step}, path)
    os.utime(path, (time, time))


def test_the_most_advanced_complete_checkpoint_is_found(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    for name, step, time in (("best", 10, 300), ("last", 30, 100), ("early", 20, 200)):
        write_step(folder / f"{name}.ckpt", step, time)
    assert find_resumable(tmp_path) == folder / "last.ckpt"
    assert capsys.readouterr().out == ""

    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-1])
    (folder / "cut.ckpt").write_bytes(b"PK")
    assert find_resumable(tmp_path) == folder / "early.ckpt"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"passed over: {folder}") for line in lines)


def test_of_equal_steps_the_later_file_is_taken(tmp_path):
    write_step(tmp_path / "checkpoints" / "best.ckpt", 10, 100)
    write_step(tmp_path / "checkpoints" / "last.ckpt", 10, 200)
    assert find_resumable(tmp_path).name == "last.ckpt"


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        find_resumable(tmp_path)


def test_metadata_is_text_and_numbers(run_dir):
    found = read_metadata(run_dir / "checkpoints" / "last.ckpt")
    assert found["config"].startswith("trainer:")
    assert found["global_step"] == 8
    assert found[checkpoint.KEY]["format"] == checkpoint.FORMAT
    assert not {"state_dict", "callbacks", "optimizer_states"} & found.keys()
