"""The run folder of each run of a W&B sweep."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from lightning_modules.loggers import check_run_id


def in_sweep(arguments: list[str]) -> list[str]:
    """Give each run of a sweep a folder of its own, ``<run_dir>/<WANDB_RUN_ID>``, if an agent of W&B has started this process.

    A ``--run_dir`` on the command line is taken as it is: whoever names a folder means that folder.

    An agent starts every run of a sweep with the same command and other values. It starts a run that was preempted again under
    the same id, so with ``--ckpt_path auto`` that run goes on in its folder.

    Args:
        arguments: the arguments as ``expand`` leaves them, with every recipe in full.

    Errors: ValueError for an id that W&B would not accept.
    """
    run_id = os.environ.get("WANDB_RUN_ID")
    if not os.environ.get("WANDB_SWEEP_ID") or not run_id:
        return arguments
    folders = ["runs/default"]
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option == "--run_dir":
            return arguments
        if option == "--config":
            settings = yaml.safe_load(value)
            folders += [settings["run_dir"]] if isinstance(settings, dict) and "run_dir" in settings else []
    return [*arguments, f"--run_dir={Path(folders[-1]) / check_run_id(run_id)}"]
