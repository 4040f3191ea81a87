"""What a resumed run takes from its checkpoint, and what from its configuration."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from lightning_modules.command_line.cli import main
from robust_asr.storage import sealed
from tests.command_line import small_config, write_config

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
SCHEDULES = "torch.optim.lr_scheduler."


@pytest.fixture
def config(tiny_manifests: Path, tmp_path: Path) -> dict:
    settings = small_config(tiny_manifests, tmp_path / "run", trainer__max_epochs=1)
    settings["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    settings["data"]["init_args"]["max_duration"] = 16.0
    return settings


def fit(config: dict, folder: Path, *arguments: object) -> None:
    main(["fit", "--config", str(write_config(folder / "c.yaml", config)), *map(str, arguments)])


def refusal(config: dict, folder: Path, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        fit(config, folder, *arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def last(folder: Path) -> dict:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def group(folder: Path) -> dict:
    return last(folder)["optimizer_states"][0]["param_groups"][0]


def rates(folder: Path) -> list[float]:
    with (folder / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["lr-AdamW"]) for row in rows if row["lr-AdamW"]]


def test_options_of_the_optimiser_are_the_present_ones(config: dict, tmp_path: Path, capsys) -> None:
    del config["lr_scheduler"]
    fit(config, tmp_path)
    config["optimizer"]["init_args"] = {"lr": 0.0001, "weight_decay": 0.5}
    fit(config, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs=2")
    assert (rates(tmp_path)[0], rates(tmp_path)[-1], group(tmp_path)["weight_decay"]) == (0.003, 0.0001, 0.5)
    assert "lr 0.003 is now 0.0001" in capsys.readouterr().out


def test_the_rate_is_that_of_the_present_schedule_at_this_step(config: dict, tmp_path: Path) -> None:
    fit(config, tmp_path)
    config["lr_scheduler"]["init_args"]["gamma"] = 0.5
    fit(config, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs=2")
    assert rates(tmp_path)[-1] == pytest.approx(0.003 * 0.5 ** (len(rates(tmp_path)) - 1))


def test_a_one_cycle_schedule_can_be_made_longer(config: dict, tmp_path: Path) -> None:
    one_cycle = {"max_lr": 0.003, "total_steps": 10}
    config["lr_scheduler"] = {"class_path": f"{SCHEDULES}OneCycleLR", "init_args": one_cycle}
    fit(config, tmp_path)
    one_cycle["total_steps"] = 40
    fit(config, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs=2")
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **one_cycle)
    for _ in range(len(rates(tmp_path)) - 1):
        optimizer.step()
        schedule.step()
    assert rates(tmp_path)[-1] == optimizer.param_groups[0]["lr"]


def test_a_schedule_that_is_over_before_this_step_is_named(config: dict, tmp_path: Path, capsys) -> None:
    one_cycle = {"max_lr": 0.003, "total_steps": 10}
    config["lr_scheduler"] = {"class_path": f"{SCHEDULES}OneCycleLR", "init_args": one_cycle}
    fit(config, tmp_path)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    one_cycle["total_steps"] = 2
    sentence = refusal(config, tmp_path, capsys, "--ckpt_path", "last", "--trainer.max_epochs=2")
    assert "lr_scheduler: OneCycleLR ends before step" in sentence
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before, "a refused resume changes nothing"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}}, "optimizer: the state of AdamW"),
        ({"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}}, "optimizer: the state of AdamW"),
        ({"lr_interval": "epoch"}, "lr_interval: the schedule of the checkpoint counts"),
    ],
)
def test_what_cannot_change_in_the_middle_is_refused_by_name(
    change: dict, sentence: str, config: dict, tmp_path: Path, capsys
) -> None:
    fit(config, tmp_path)
    if "lr_interval" in change:
        config["model"]["init_args"] |= change
    else:
        config |= change
    assert sentence in refusal(config, tmp_path, capsys, "--ckpt_path", "last", "--trainer.max_epochs=2")


def test_reductions_of_a_plateau_are_kept_and_scaled(config: dict, tmp_path: Path) -> None:
    def plateau(lr: float) -> dict:
        settings = {"monitor": "val/wer", "factor": 0.5, "patience": 0, "threshold": 10.0, "threshold_mode": "abs"}
        config["optimizer"]["init_args"]["lr"] = lr
        config["lr_scheduler"] = {
            "class_path": "pytorch_lightning.cli.ReduceLROnPlateau",
            "init_args": settings,
        }
        return config

    fit(plateau(0.004), tmp_path, "--trainer.max_epochs=3")
    assert group(tmp_path)["lr"] == 0.001, "two epochs without progress"
    fit(plateau(0.0004), tmp_path, "--ckpt_path", "last", "--trainer.max_epochs=4")
    assert rates(tmp_path)[-1] == pytest.approx(0.0001)


def test_no_checkpoint_sets_the_learning_rate(config: dict, tmp_path: Path) -> None:
    fit(config, tmp_path)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    foreign = sealed.materialize(sealed.read(path))
    foreign["optimizer_states"][0]["param_groups"][0] |= {"lr": 100.0, "initial_lr": 100.0}
    foreign["lr_schedulers"][0] |= {"base_lrs": [100.0], "gamma": 1.0}
    sealed.write(foreign, path)
    fit(config, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs=2")
    steps = len(rates(tmp_path))
    assert rates(tmp_path)[-1] == pytest.approx(0.003 * 0.97 ** (steps - 1))


def test_patience_raised_counts_on(config: dict, tmp_path: Path) -> None:
    def patient(patience: int) -> dict:
        settings = {"monitor": "val/wer", "patience": patience, "min_delta": 10.0}
        config["trainer"] |= {
            "max_epochs": 9,
            "callbacks": [{"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": settings}],
        }
        return config

    fit(patient(1), tmp_path)
    assert last(tmp_path)["epoch"] == 1
    fit(patient(3), tmp_path, "--ckpt_path", "last")
    assert last(tmp_path)["epoch"] == 3, "as a run whose patience was 3 from the beginning"


@pytest.mark.parametrize("copied", [True, False])
def test_the_best_score_moves_with_the_folder(copied: bool, config: dict, tmp_path: Path, capsys) -> None:
    # The loss falls, so that with max the first epoch is the best.
    config["checkpoint"] |= {"monitor": "val/dev/loss", "mode": "max"}
    fit(config, tmp_path, "--trainer.max_epochs=2")
    (tmp_path / "run").rename(tmp_path / "moved")
    best = tmp_path / "moved" / "checkpoints" / "best.ckpt"
    if not copied:
        best.unlink()
    fit(config, tmp_path, "--run_dir", tmp_path / "moved", "--ckpt_path", "last", "--trainer.max_epochs=3")
    assert torch.load(best, weights_only=True)["epoch"] == (0 if copied else 2)
    assert ("does not hold the best checkpoint" in capsys.readouterr().out) is not copied
