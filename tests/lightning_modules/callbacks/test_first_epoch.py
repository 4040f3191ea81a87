"""A name that nobody logs and a state that no checkpoint holds are refused before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_modules.command_line.cli import main
from tests.command_line import small_config, write_config

EARLY_STOPPING = "pytorch_lightning.callbacks.EarlyStopping"
PLATEAU = "pytorch_lightning.cli.ReduceLROnPlateau"


def refused(config: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--allow_module", "tests"])
    assert left.value.code == 2
    assert not (tmp_path / "run").exists(), "nothing is left of a run that did not begin"
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "settings"),
    [
        ("monitor of RunCheckpoint", {"checkpoint__monitor": "val/wre"}),
        (
            "monitor of EarlyStopping",
            {"trainer__callbacks": [{"class_path": EARLY_STOPPING, "init_args": {"monitor": "val/wre"}}]},
        ),
        (
            "monitor of ReduceLROnPlateau",
            {"lr_scheduler": {"class_path": PLATEAU, "init_args": {"monitor": "val/wre"}}},
        ),
    ],
)
def test_a_name_that_nobody_logs(setting: str, settings: dict, tiny_manifests: Path, tmp_path: Path, capsys) -> None:
    config = small_config(tiny_manifests, tmp_path / "run", **settings)
    config["model"]["init_args"]["lr_interval"] = "epoch"
    sentence = refused(config, tmp_path, capsys)
    assert setting in sentence and "'val/wre'" in sentence and "val/dev/wer" in sentence


def test_a_value_of_a_validation_that_does_not_happen(tiny_manifests: Path, tmp_path: Path, capsys) -> None:
    schedule = {"class_path": PLATEAU, "init_args": {"monitor": "val/wer"}}
    config = small_config(tiny_manifests, tmp_path / "run", data__init_args__validate=[], lr_scheduler=schedule)
    config["model"]["init_args"]["lr_interval"] = "epoch"
    assert "ReduceLROnPlateau: nothing is logged as 'val/wer'" in refused(config, tmp_path, capsys)


class Secretive(torch.optim.lr_scheduler.ExponentialLR):
    """Its state is of a class that no checkpoint may name."""

    def state_dict(self) -> dict:
        return {**super().state_dict(), "place": Path("somewhere")}


def test_a_state_that_no_checkpoint_holds(tiny_manifests: Path, tmp_path: Path, capsys) -> None:
    schedule = {"class_path": f"{__name__}.Secretive", "init_args": {"gamma": 0.9}}
    sentence = refused(small_config(tiny_manifests, tmp_path / "run", lr_scheduler=schedule), tmp_path, capsys)
    assert "lr_scheduler: the state of Secretive has no place in a checkpoint" in sentence and "pathlib" in sentence
