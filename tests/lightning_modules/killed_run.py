"""A tiny run that can be killed at a named moment and resumed, in processes that share one import: for test_loggers.py.

Usage: killed_run.py SCENARIOS.json, a list of
{"folder": path, "checkpoint": "last" or "lightning", "phases": [{"kill": [hook, step] or null, "pause": [steps]}]}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint
from torch import nn

from lightning_modules.callbacks.checkpoints import LastCheckpoint
from lightning_modules.callbacks.rewind import RewindLoggers
from lightning_modules.callbacks.samples import DashboardSamples
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.loggers import RunCSVLogger, RunWandbLogger, wandb_run_id
from lightning_modules.loggers.wandb_pieces import recorded_values
from robust_asr.types import AudioBatch, Transcript

NUM_EPOCHS, NUM_BATCHES = 3, 5


class Echo(nn.Module):
    """Hears the length of a waveform."""

    sample_rate = 8000

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)


class Toy(pl.LightningModule):
    """What it trains on is a function of the step: the data need no resuming."""

    def __init__(self) -> None:
        super().__init__()
        self.recognizer = Echo()
        self.sample_rate = self.recognizer.sample_rate

    def training_step(self, batch, batch_idx):
        step = float(self.global_step)
        inputs = torch.tensor([step, step * 0.3, 1.0, -step]).sin()
        loss = (self.recognizer.layer(inputs) - 1).square().mean()
        self.log("train/loss", loss, batch_size=1)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/a/loss", self.recognizer.layer.weight.square().sum(), batch_size=1)
        return {"batch": batch, "transcripts": [Transcript(f"HEARD {length}") for length in batch.lengths.tolist()]}

    def on_train_epoch_end(self):
        self.log("train/epoch_norm", self.recognizer.layer.weight.norm())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


class Kill(Checkpoint):
    """SIGKILL in a hook of a step; a checkpoint callback, so that it comes after those that save."""

    def __init__(self, hook: str | None, step: int | None, pause: list[int]) -> None:
        self.step, self.pause = step, pause
        if hook is not None:
            setattr(self, hook, self._kill)

    def _kill(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            if "kill" in self.pause:
                wait_until_on_disk(trainer.loggers[-1], self.step - 1)
            os.kill(os.getpid(), signal.SIGKILL)

    def on_before_zero_grad(self, trainer, *args):
        if trainer.global_step in self.pause:
            wait_until_on_disk(trainer.loggers[-1], trainer.global_step - 1)


def wait_until_on_disk(logger: RunWandbLogger, step: int, seconds: float = 60.0) -> None:
    """W&B writes to its file after a while."""
    deadline = time.monotonic() + seconds
    while step not in recorded_values(logger.experiment.settings.sync_file):
        if time.monotonic() > deadline:
            raise TimeoutError(f"W&B has not written step {step} within {seconds} s")
        time.sleep(0.05)


def batches() -> list[AudioBatch]:
    return [
        AudioBatch(torch.full((1, 80), 0.1), torch.tensor([80 - index]), (f"HEARD {index}",), (f"utterance-{index}",))
        for index in range(NUM_BATCHES)
    ]


def fit(folder: Path, phase: dict, checkpoint: str, *, wandb: bool, resume: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loggers: list = [RunCSVLogger(str(folder))]
    if wandb:
        loggers.append(RunWandbLogger(run_dir=str(folder), run_id=wandb_run_id(folder)))
    saving = (
        LastCheckpoint(str(folder), every_n_steps=2)
        if checkpoint == "last"
        else ModelCheckpoint(dirpath=folder, every_n_train_steps=2, save_last=True)
    )
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("seed_everything: 7\nmodel: {init_args: {width: 3}}\n")
    trainer = pl.Trainer(
        max_epochs=NUM_EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=loggers,
        log_every_n_steps=1,
        num_sanity_val_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[
            LearningRateMonitor("step"),
            RewindLoggers(),
            Throughput(),
            DashboardSamples(num_samples=2),
            saving,
            Kill(*(phase["kill"] or (None, None)), phase.get("pause", [])),
        ],
    )
    loader = torch.utils.data.DataLoader(batches(), batch_size=None)
    trainer.fit(Toy(), loader, loader, ckpt_path=str(folder / "last.ckpt") if resume else None, weights_only=True)


def forked(action) -> int:
    """Signal or exit code with which a child that runs ``action`` ends."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def main() -> None:
    for scenario in json.loads(Path(sys.argv[1]).read_text()):
        folder = Path(scenario["folder"])
        for index, phase in enumerate(scenario["phases"]):
            wandb = scenario.get("wandb", True)

            def run(folder=folder, phase=phase, scenario=scenario, wandb=wandb, index=index):
                fit(folder, phase, scenario["checkpoint"], wandb=wandb, resume=index > 0)
                if not wandb and "wandb" in sys.modules:
                    raise AssertionError("wandb was imported although it was not configured")

            code = forked(run)
            expected = -signal.SIGKILL if phase["kill"] else 0
            if code != expected:
                sys.exit(f"{scenario} ended phase {index} with {code}, expected {expected}")


if __name__ == "__main__":
    main()
