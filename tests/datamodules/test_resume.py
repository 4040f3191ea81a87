"""Exact resume: after any checkpoint, the batches that follow are those of the run that was never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from datamodules import Speech


class Recorder(pl.LightningModule):
    """Writes down which utterances came in which step of which epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, tuple[str, ...]]] = []
        self.sums: list[float] = []

    def training_step(self, batch, batch_idx: int):
        self.seen.append((self.trainer.current_epoch, batch.ids))
        self.sums.append(float(batch.waveforms.double().sum()))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(manifests: Path, folder: Path, *, num_workers: int, ckpt_path: str | None = None, **trainer) -> Recorder:
    module = Recorder()
    callbacks = [
        ModelCheckpoint(folder / "steps", filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ModelCheckpoint(folder / "epochs", filename="{epoch}", save_on_train_epoch_end=True, save_top_k=-1),
    ]
    pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks if ckpt_path is None else [],
        logger=False,
        enable_checkpointing=ckpt_path is None,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 2, **trainer},
    ).fit(
        module,
        datamodule=Speech(
            str(manifests),
            train=["train"],
            validate=["dev"],
            max_duration=3.0,
            num_buckets=3,
            num_workers=num_workers,
            speed_perturb=True,
        ),
        ckpt_path=ckpt_path,
        weights_only=True,
    )
    return module


@pytest.fixture(scope="module", params=[0, 2], ids=["0 workers", "2 workers"])
def uninterrupted(request, manifests: Path, tmp_path_factory) -> tuple[Recorder, Path, int]:
    folder = tmp_path_factory.mktemp("run")
    return _fit(manifests, folder, num_workers=request.param), folder, request.param


def test_every_epoch_brings_every_utterance_once_in_another_order(uninterrupted):
    run, _, _ = uninterrupted
    epochs = [[ids for epoch, ids in run.seen if epoch == wanted] for wanted in range(2)]
    names = [sorted(utterance for ids in epoch for utterance in ids) for epoch in epochs]
    assert names[0] == names[1]
    assert len(names[0]) == len(set(names[0])) == 3 * 47
    assert {frozenset(ids) for ids in epochs[0]} != {frozenset(ids) for ids in epochs[1]}
    assert epochs[0][0] != epochs[1][0]


def test_resume_from_any_step_replays_exactly_the_rest(uninterrupted, manifests: Path, tmp_path: Path):
    run, folder, num_workers = uninterrupted
    steps = sorted((folder / "steps").iterdir(), key=lambda path: int(path.stem.split("=")[1]))
    assert len(steps) == len(run.seen)
    end = sum(1 for epoch, _ in run.seen if epoch == 0)
    for done in (2, end - 1, end, end + 1) if num_workers else (1, 2, end - 1, end, end + 1, len(steps) - 1):
        resumed = _fit(manifests, tmp_path, num_workers=num_workers, ckpt_path=str(steps[done - 1]))
        assert resumed.seen == run.seen[done:], f"after step {done}"
        assert resumed.sums == run.sums[done:]


def test_resume_from_the_end_of_an_epoch(uninterrupted, manifests: Path, tmp_path: Path):
    run, folder, num_workers = uninterrupted
    resumed = _fit(manifests, tmp_path, num_workers=num_workers, ckpt_path=str(folder / "epochs" / "epoch=0.ckpt"))
    assert resumed.seen == [(epoch, ids) for epoch, ids in run.seen if epoch > 0]


def test_resume_of_a_run_counted_in_steps_with_validation_in_the_middle(manifests: Path, tmp_path: Path):
    length = {"max_epochs": -1, "max_steps": 28, "val_check_interval": 5, "check_val_every_n_epoch": None}
    run = _fit(manifests, tmp_path, num_workers=0, **length)
    assert {epoch for epoch, _ in run.seen} == {0, 1}
    end = sum(1 for epoch, _ in run.seen if epoch == 0)
    for done in (4, 5, 6, end - 1, end, end + 1):
        ckpt_path = str(tmp_path / "steps" / f"step={done}.ckpt")
        assert _fit(manifests, tmp_path, num_workers=0, ckpt_path=ckpt_path, **length).seen == run.seen[done:], done
