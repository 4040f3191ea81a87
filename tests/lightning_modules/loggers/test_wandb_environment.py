"""W&B's variables of the environment go before the settings of a recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from lightning_modules.loggers import RunWandbLogger, wandb_run_id


@pytest.mark.parametrize(
    ("variable", "configured", "mode"),
    [
        ("offline", "online", "offline"),
        ("dryrun", "online", "offline"),
        ("online", "offline", "online"),
        ("disabled", "online", "disabled"),
        ("", "online", "online"),
    ],
)
def test_the_mode_of_the_environment_wins(variable: str, configured: str, mode: str, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert RunWandbLogger(mode=configured).mode == mode


def test_an_unknown_mode_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "quiet")
    with pytest.raises(ValueError, match=r"WANDB_MODE must be one of offline, .* found 'quiet'"):
        RunWandbLogger()


def test_the_id_of_an_agent_is_the_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent002")
    assert wandb_run_id(tmp_path) == "agent002"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_run_id(tmp_path) == "agent002", "a resume outside the sweep goes on with the same run"
    monkeypatch.setenv("WANDB_RUN_ID", "agent003")
    with pytest.raises(ValueError, match=r"WANDB_RUN_ID is agent003, and .* says agent002"):
        wandb_run_id(tmp_path)


def test_names_of_the_environment_are_left_to_wandb(tmp_path: Path, monkeypatch) -> None:
    given: dict = {}

    def init(**arguments):
        given.update(arguments)
        return SimpleNamespace(starting_step=0)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_PROJECT", "of-the-agent")
    logger = RunWandbLogger(project="of-the-recipe", group="speakers", run_dir=str(tmp_path), run_id="abc")
    assert logger.experiment.starting_step == 0
    assert "project" not in given and given["group"] == "speakers"
