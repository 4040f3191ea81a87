"""The average of the last epochs, also of a run that became longer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from lightning_modules.command_line.cli import main
from tests.command_line import small_config, write_config

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}


@pytest.fixture
def config(tiny_manifests: Path, tmp_path: Path) -> dict:
    averaging = {
        "class_path": "lightning_modules.callbacks.averaging.LastEpochsAveraging",
        "init_args": {"num_epochs": 2},
    }
    settings = small_config(tiny_manifests, tmp_path / "run", trainer__callbacks=[averaging])
    settings["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    settings["data"]["init_args"]["max_duration"] = 16.0
    return settings


def fit(config: dict, run_dir: Path, max_epochs: int, *arguments: str) -> dict:
    """``last.ckpt`` of the run."""
    path = write_config(run_dir.parent / "c.yaml", config)
    main(["fit", "--config", str(path), "--run_dir", str(run_dir), f"--trainer.max_epochs={max_epochs}", *arguments])
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["val/dev/loss"]) for row in csv.DictReader(file) if row["val/dev/loss"]]


@pytest.mark.parametrize("first", [3, 4])
def test_a_longer_run_averages_its_own_last_epochs(first: int, config: dict, tmp_path: Path) -> None:
    whole = fit(config, tmp_path / "whole", 5)
    fit(config, tmp_path / "raised", first)
    raised = fit(config, tmp_path / "raised", 5, "--ckpt_path", "last")
    assert raised["averaging_state"]["n_averaged"] == 2
    assert all(torch.equal(raised["state_dict"][name], value) for name, value in whole["state_dict"].items())
    assert losses(tmp_path / "raised")[first:] == losses(tmp_path / "whole")[first:]


def test_epochs_that_are_lost_are_named(config: dict, tmp_path: Path, capsys) -> None:
    config["trainer"]["callbacks"][0]["init_args"]["num_epochs"] = 3
    fit(config, tmp_path / "run", 4)
    with pytest.raises(SystemExit) as stopped:
        fit(config, tmp_path / "run", 5, "--ckpt_path", "last")
    assert stopped.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "would begin with epoch 2" in sentence and "at least 7" in sentence


def test_the_last_validation_is_of_the_average(config: dict, tmp_path: Path) -> None:
    last = fit(config, tmp_path / "run", 3)
    config["checkpoint"] |= {"monitor": "val/dev/loss", "mode": "min"}
    fit(config, tmp_path / "monitored", 3)
    best = torch.load(tmp_path / "monitored" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 2, "the loss falls"
    assert all(torch.equal(best["state_dict"][name], value) for name, value in last["state_dict"].items())
