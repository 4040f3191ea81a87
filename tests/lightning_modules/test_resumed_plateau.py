"""ReduceLROnPlateau steps once an epoch, wherever the run is killed: the same learning rates, weights, schedule and best epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.command_line import curve, small_config, train, write_config
from tests.lightning_modules.test_resume import assert_same_run


def plateau(manifests: Path, run_dir: Path, callbacks: list[dict]) -> dict:
    """From the second epoch on each epoch halves the learning rate: nothing ever improves by so much."""
    arguments = {"monitor": "val/dev/loss", "factor": 0.5, "patience": 0, "threshold": 0.99}
    schedule = {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": arguments}
    config = small_config(manifests, run_dir, lr_scheduler=schedule, trainer__callbacks=callbacks)
    config["checkpoint"]["monitor"] = "val/dev/loss"
    config["model"]["init_args"]["lr_interval"] = "epoch"
    return config


@pytest.fixture(scope="module")
def uninterrupted(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    result = train("fit", "--config", write_config(folder / "c.yaml", plateau(tiny_manifests, folder / "run", [])))
    assert result.returncode == 0, result.stdout
    rates = {row["epoch"]: float(row["lr-AdamW"]) for row in curve(folder / "run") if row["lr-AdamW"]}
    assert rates == {"0": 0.003, "1": 0.003, "2": 0.0015}
    return folder / "run"


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        pytest.param("on_train_epoch_start", 1, id="when last.ckpt of the epoch is written"),
        pytest.param("on_train_epoch_end", 1, id="when best.ckpt is written and last.ckpt is not"),
        pytest.param("on_train_epoch_start", 2, id="after a reduction", marks=pytest.mark.long),
        pytest.param("on_validation_end", 1, id="before both, in the middle of an epoch", marks=pytest.mark.long),
    ],
)
def test_killed_at_the_end_of_an_epoch(
    hook: str, epoch: int, uninterrupted: Path, tiny_manifests: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    kill = {"class_path": "tests.callbacks.KillInHook", "init_args": {"hook": hook, "epoch": epoch}}
    first = train("fit", "--config", write_config(tmp_path / "k.yaml", plateau(tiny_manifests, run_dir, [kill])))
    assert first.returncode != 0, first.stdout
    second = write_config(tmp_path / "c.yaml", plateau(tiny_manifests, run_dir, []))
    again = train("fit", "--config", second, "--ckpt_path", "last")
    assert again.returncode == 0, again.stdout
    assert_same_run(run_dir, uninterrupted)
    for name in ("last", "best"):
        found, expected = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for folder in (run_dir, uninterrupted)
        )
        assert found["lr_schedulers"] == expected["lr_schedulers"]
        assert found["global_step"] == expected["global_step"]
