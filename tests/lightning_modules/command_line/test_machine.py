from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_modules.command_line.machine import check_machine


def settings(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**{"accelerator": "auto", "precision": None, **changes})


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.accelerator: is {accelerator}.*--trainer\.accelerator cpu"):
        check_machine(settings(accelerator=accelerator), data="datamodules.Speech")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_machine(settings(accelerator=accelerator), data="datamodules.Speech")


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", 64])
def test_a_precision_that_converts_the_audio(precision: str | int) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.precision: {precision} .*accepted are 32-true, bf16-mixed"):
        check_machine(settings(precision=precision), data="datamodules.Speech")
    check_machine(settings(precision=precision), data="mine.Data")


@pytest.mark.parametrize("precision", [None, "32-true", 32, "bf16-mixed", "16-mixed"])
def test_every_other_precision(precision: str | int | None) -> None:
    check_machine(settings(precision=precision), data="datamodules.Speech")


def test_a_shell_inside_a_job_of_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "desktop")
    with pytest.raises(ValueError, match=r"SLURM_NTASKS: is 4 .*--ntasks-per-node.*SLURM_JOB_NAME=interactive"):
        check_machine(settings(), data="datamodules.Speech")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    check_machine(settings(), data="datamodules.Speech")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    check_machine(settings(), data="datamodules.Speech")
