"""The durable record of a run: metrics.csv in its folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from lightning_modules.loggers.metrics_file import MetricsFile


class RunCSVLogger(Logger):
    """Writes ``<run_dir>/<filename>``: a row a step, columns ``step``, ``epoch``, then names as they appear.

    Values are written so that they read back bit for bit. Columns that begin with ``time/`` are measurements of this
    machine and differ between two runs of the same configuration; every other column of a run that was killed and
    resumed equals the uninterrupted run's. A kill loses at most the last row.

    Args:
        run_dir: the run folder; the command line gives it by ``attach``. A file that is there is continued, and
            ``RewindLoggers`` drops the rows that a resumed run will measure again.
        filename: another name for rows that are no part of the training curve.
    """

    def __init__(self, run_dir: str | None = None, *, filename: str = "metrics.csv") -> None:
        super().__init__()
        if Path(filename).name != filename:
            raise ValueError(f"filename must be a name without a folder, got {filename!r}")
        self.run_dir = run_dir
        self.filename = filename
        self._opened: MetricsFile | None = None

    def attach(self, run_dir: str | Path) -> None:
        """Name the run folder; before the first use."""
        self.run_dir = str(run_dir)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str | None:
        return self.run_dir

    @property
    def path(self) -> Path:
        if self.run_dir is None:
            raise ValueError("RunCSVLogger has no run folder: give run_dir, or call attach(run_dir) before it is used")
        return Path(self.run_dir) / self.filename

    @property
    def _file(self) -> MetricsFile:
        if self._opened is None:
            self._opened = MetricsFile(self.path)
        return self._opened

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Without a step the values join the last row."""
        self._file.update((self._file.last_step or 0) if step is None else step, metrics)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml of the run folder is the record of the settings."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Go back to the moment before ``step``: its row and later ones are dropped."""
        if self.path.exists():
            self._file.rewind(step)

    @rank_zero_only
    def sync(self) -> None:
        """Make the rows as durable as a checkpoint that is about to be written."""
        if self.path.exists():
            self._file.sync()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.sync()
