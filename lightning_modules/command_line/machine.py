"""Whether the machine and the job that it runs in can do what the settings of a trainer ask for."""

from __future__ import annotations

import os
from typing import Any

import torch

# Lightning converts the floating tensors of a batch for these; a batch of this project is not changed.
_CONVERTING = ("16-true", "bf16-true", "64-true", "64", "transformer-engine", "transformer-engine-float16")
_SHELLS = ("bash", "interactive")


def check_machine(trainer: Any, *, data: str) -> None:
    """ValueError names the setting that this machine cannot fulfil, and what to set instead.

    Args:
        trainer: the settings of the trainer.
        data: the full name of the data module's class.
    """
    accelerator, precision = trainer.accelerator, str(trainer.precision)
    if accelerator in ("gpu", "cuda") and not _has_gpu(accelerator):
        raise ValueError(
            f"trainer.accelerator: is {accelerator}, and torch finds no GPU on this machine; --trainer.accelerator cpu "
            "--trainer.devices 1 --trainer.precision 32-true runs on the CPU"
        )
    if precision in _CONVERTING and data.startswith("datamodules."):
        raise ValueError(
            f"trainer.precision: {precision} would convert the audio of {data}, which stays float32; accepted are 32-true, "
            "bf16-mixed and 16-mixed"
        )
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ and os.environ.get("SLURM_JOB_NAME") not in _SHELLS:
        raise ValueError(
            f"SLURM_NTASKS: is {tasks} without SLURM_NTASKS_PER_NODE, which a run needs; start the job with --ntasks-per-node, or "
            "in the shell of srun --pty set SLURM_JOB_NAME=interactive for a run of one task"
        )


def _has_gpu(accelerator: str) -> bool:
    return torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
