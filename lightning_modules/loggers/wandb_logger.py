"""Weights & Biases as a view of the run folder: one run, one row a step, however often the run was killed and resumed."""

from __future__ import annotations

import os
import re
import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers.wandb import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from lightning_modules.loggers.metrics_file import read_metrics
from lightning_modules.loggers.wandb_pieces import Recorded, offline_pieces, recorded_values
from robust_asr.storage.files import written_whole

RUN_ID_FILE = "wandb_run_id.txt"
# W&B refuses the first eight characters. The id is part of the name of a folder, which a backslash would divide.
_NOT_IN_RUN_IDS = re.compile(r"[:;,#?/\'\\]")
_LONGEST_RUN_ID = 128
# The older names are W&B's too.
_MODES = {"offline": "offline", "dryrun": "offline", "online": "online", "run": "online", "disabled": "disabled"}
_VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
}
_ALPHABET = string.ascii_lowercase + string.digits


def check_run_id(run_id: object) -> str:
    """The id, unchanged. Errors: ValueError for an id that W&B does not accept, or that cannot be part of a folder's name."""
    text = run_id if isinstance(run_id, str) else ""
    fits = 0 < len(text) <= _LONGEST_RUN_ID and text.isprintable() and text == text.strip() and text.strip(".") != ""
    if not fits or _NOT_IN_RUN_IDS.search(text):
        raise ValueError(
            f"a W&B run id has 1 to {_LONGEST_RUN_ID} printable characters, none of : ; , # ? / ' \\ and no space at its ends, "
            f"found {str(run_id)[:80]!r}"
        )
    return text


def wandb_run_id(run_dir: str | Path, *, from_checkpoint: str | None = None) -> str:
    """The id of the run in this folder: the one written there, else ``WANDB_RUN_ID``, which the agent of a sweep sets, else the
    checkpoint's, else a new one, written there.

    Errors: ValueError where the file, the variable or the checkpoint holds no id, or where the first two are of different runs.
    """
    path = Path(run_dir) / RUN_ID_FILE
    given = os.environ.get("WANDB_RUN_ID") or None
    if path.exists():
        written = check_run_id(path.read_text(errors="replace").strip())
        if given not in (None, written):
            raise ValueError(
                f"WANDB_RUN_ID is {given}, and {path} says {written}: unset the one, or name another --run_dir"
            )
        return written
    from_checkpoint = given or from_checkpoint
    run_id = (
        "".join(secrets.choice(_ALPHABET) for _ in range(8))
        if from_checkpoint is None
        else check_run_id(from_checkpoint)
    )
    if rank_zero_only.rank == 0:
        with written_whole(path) as partial:
            partial.write_text(run_id + "\n")
    return run_id


def wandb_mode(configured: str) -> str:
    """``WANDB_MODE`` where it is set, else the configured mode: online, offline or disabled. Errors: ValueError for others."""
    mode = os.environ.get("WANDB_MODE") or configured
    if mode not in _MODES:
        raise ValueError(f"WANDB_MODE must be one of {', '.join(_MODES)}, found {mode!r}")
    return _MODES[mode]


class RunWandbLogger(WandbLogger):
    """Sends each row of the run to Weights & Biases once, under one id, with the global step as W&B's own step.

    A row is sent when it is complete. On a resume, rows that a kill kept from W&B are sent again from ``metrics.csv``
    and rows that W&B already holds are not repeated. Neither code, console, git state, host name nor paths are
    collected, and checkpoints are never uploaded.

    Args:
        mode: ``offline`` needs no account and no network: ``wandb sync <run_dir>/wandb/offline-run-*`` uploads later.
            ``online`` needs ``wandb login``. ``WANDB_MODE`` goes before it; with ``disabled`` the command line makes no W&B run.
        project, entity, name, group, tags: as in ``wandb.init``; W&B's variables of these go before them.
        run_dir, run_id: the run folder and the id from ``wandb_run_id``; the command line gives them by ``attach``.
    """

    def __init__(
        self,
        *,
        mode: Literal["offline", "online"] = "offline",
        project: str = "robust-asr",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        run_dir: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self.mode = wandb_mode(mode)
        offline = self.mode == "offline"
        super().__init__(name=name, project=project, offline=offline, entity=entity, group=group, tags=tags)
        self._row: dict[str, Any] = {}
        self._row_step = 0
        self._recorded: Recorded = {}
        self._first_unsent = 0
        if run_dir is not None and run_id is not None:
            self.attach(run_dir, run_id)

    def attach(self, run_dir: str | Path, run_id: str) -> None:
        """Name the run that this logger shows; before the first use."""
        self.run_dir = str(run_dir)
        self._id = check_run_id(run_id)
        self._save_dir = self.run_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first use."""
        if self._experiment is None:
            if self._id is None:
                raise ValueError("RunWandbLogger has no run folder: call attach(run_dir, run_id) before it is used")
            self._experiment = _start(self.mode, self.run_dir, self._id, self._wandb_init)
            self._first_unsent = self._experiment.starting_step
        return self._experiment

    @rank_zero_only
    def log_run_config(self) -> None:
        """The resolved configuration, ``config.yaml`` of the run folder where there is one, becomes the W&B config."""
        path = Path(self.run_dir) / "config.yaml"
        if path.exists():
            self.log_hyperparams(yaml.safe_load(path.read_text()))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Values, and W&B tables or media, of a step. Without a step they join the row at hand."""
        step = self._row_step if step is None else step
        if step != self._row_step:
            self._send_row()
        self._row_step = step
        self._row.update(metrics)

    @rank_zero_only
    def complete_before(self, step: int) -> None:
        """Send the row that waits, if it is of an earlier step: nothing more will be measured there."""
        if self._row_step < step:
            self._send_row()

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """The run goes on at ``step``: send the earlier values of ``metrics.csv`` that W&B does not hold.

        Errors: ValueError where a .wandb file or metrics.csv of the run folder cannot be read.
        """
        self._row, self._recorded = {}, self._read_pieces()
        for row in read_metrics(Path(self.run_dir) / "metrics.csv"):
            if row["step"] < step:
                self._send(row.pop("step"), row)

    @rank_zero_only
    def mark_preempted(self) -> None:
        """Tell W&B that a scheduler stops this run, so that the next agent of its sweep goes on with it."""
        self.experiment.mark_preempting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the last row and close the run; a row that a failure left incomplete will be sent by the resumed run."""
        if self._experiment is None:
            return
        if status == "success":
            self._send_row()
        self._row = {}
        self._experiment.finish(exit_code=0 if status == "success" else 1)
        self._experiment = None

    def _read_pieces(self) -> Recorded:
        recorded: Recorded = {}
        if self.mode == "online":
            # The server holds every row below the step at which it lets the run go on.
            return recorded
        own = Path(self.experiment.settings.sync_file).resolve()
        for piece in offline_pieces(self.run_dir, self._id):
            for step, names in recorded_values(piece).items() if piece.resolve() != own else ():
                recorded.setdefault(step, set()).update(names)
        return recorded

    def _send_row(self) -> None:
        if self._row:
            self._send(self._row_step, self._row)
            self._row = {}

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        run = self.experiment
        known = self._recorded.get(step, set())
        values = {name: value for name, value in values.items() if name not in known}
        if values and step >= self._first_unsent:
            run.log({**values, "trainer/global_step": step}, step=step, commit=True)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned process starts a W&B run of its own; Lightning would start one here for it to attach to.
        return self.__dict__ | {"_experiment": None}


def _start(mode: str, run_dir: str, run_id: str, arguments: dict[str, Any]) -> Any:
    import wandb

    chosen: dict[str, Any] = {
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "host": "",
        "save_code": False,
        "silent": mode == "offline",
        "x_disable_meta": True,
        "x_save_requirements": False,
        # Offline rows reach the file this often, not only in blocks of 32 KiB; older versions lack the setting.
        "x_transaction_log_flush_interval": 1.0,
    }
    settings = wandb.Settings(**{name: value for name, value in chosen.items() if name in wandb.Settings.model_fields})
    # W&B reads its variables for what it is not given.
    named = {name: arguments.get(name) for name, variable in _VARIABLES.items() if not os.environ.get(variable)}
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            mode=mode, dir=run_dir, id=run_id, resume="allow", reinit="create_new", settings=settings, **named
        )
    except wandb.errors.Error as error:
        raise ValueError(
            f"trainer.logger: W&B does not start this run ({error}); log in by `wandb login`, or keep mode: offline"
        ) from error
