"""The run folder: resolved configuration, metrics, checkpoints of one training run."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import SaveConfigCallback

from robust_asr.storage.files import written_whole
from robust_asr.text.terminal import say

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


def is_first_process() -> bool:
    """Whether this process is rank zero, judged before any process group exists (torchrun, SLURM, Lightning)."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def refuse_used(run_dir: Path) -> None:
    """ValueError where a fresh run would write into the folder of an earlier one."""
    used = [name for name in (CHECKPOINTS, "metrics.csv", CONFIG) if (run_dir / name).exists()]
    if used:
        raise ValueError(
            f"run_dir {run_dir} holds {', '.join(used)} of an earlier run; go on with --ckpt_path last, or name another --run_dir"
        )


class RunConfig(SaveConfigCallback):
    """Writes the resolved configuration into the run folder, and as plain text into every checkpoint.

    Both happen when training begins: a run that is refused leaves the folder as it was. On a resume the checkpoint's text is
    compared with the present one and every difference is printed; nothing is taken from it.
    """

    _saved: str | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning would write its own file here."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        self._print_changes()
        with written_whole(Path(trainer.default_root_dir) / CONFIG) as partial:
            partial.write_text(self._text())

    def _text(self) -> str:
        return self.parser.dump(self.config, skip_none=False, skip_link_targets=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self._text()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("config")
        self._saved = saved if isinstance(saved, str) else None

    def _print_changes(self) -> None:
        if self._saved is None:
            return
        lines = difflib.unified_diff(
            self._saved.splitlines(), self._text().splitlines(), "checkpoint", "now", lineterm="", n=0
        )
        changes = [line for line in lines if "ckpt_path" not in line and not line.startswith("@@")]
        if len(changes) > 2:
            say("settings that differ from the checkpoint's (the present ones are used):", *changes[2:], indent="  ")
