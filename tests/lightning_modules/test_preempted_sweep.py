"""Runs of a W&B sweep that a scheduler stops go on under their ids, each in its own folder, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_modules.loggers.wandb_pieces import offline_pieces, recorded_values
from tests.command_line import curve, small_config, train, write_config
from tests.wandb_files import records_of

WANDB = {"class_path": "lightning_modules.loggers.RunWandbLogger", "init_args": {"mode": "offline"}}
STOP = {"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": 0, "batch": 2, "signal_name": "SIGUSR1"}}


@pytest.mark.long
def test_stopped_runs_of_a_sweep_go_on_as_the_same_runs(tiny_manifests: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    config = small_config(tiny_manifests, tmp_path / "sweep", trainer__logger=WANDB, trainer__max_epochs=1)
    stopped = {**config, "trainer": {**config["trainer"], "callbacks": [STOP]}}
    ids = ["run-a", "run-b"]
    for recipe, returned in ((stopped, 75), (config, 0)):
        written = write_config(tmp_path / "c.yaml", recipe)
        for run_id in ids:
            monkeypatch.setenv("WANDB_RUN_ID", run_id)
            result = train("fit", "--config", written, "--ckpt_path", "auto")
            assert result.returncode == returned, result.stdout
    assert {folder.name for folder in (tmp_path / "sweep").iterdir()} == set(ids)
    first, second = (tmp_path / "sweep" / run_id for run_id in ids)
    assert curve(first) == curve(second)
    for folder in (first, second):
        before, after = offline_pieces(folder, folder.name)
        kinds = [{record.WhichOneof("record_type") for record in records_of(piece)} for piece in (before, after)]
        assert ["preempting" in each for each in kinds] == [True, False]
        steps = [set(recorded_values(piece)) for piece in (before, after)]
        assert steps[0] and steps[1] and not steps[0] & steps[1]


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
