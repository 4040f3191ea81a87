"""A resume from a checkpoint whose training state is damaged, although its bytes are what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_modules.command_line.cli import main
from robust_asr.storage import sealed
from tests.command_line import small_config, write_config

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
STATE, GROUP = ("optimizer_states", 0, "state"), ("optimizer_states", 0, "param_groups", 0)
PROGRESS = "epoch_loop.batch_progress"


@pytest.fixture(scope="module")
def trained(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("trained")
    config = small_config(tiny_manifests, folder / "run", trainer__max_epochs=1)
    config["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    path = write_config(folder / "c.yaml", config)
    main(["fit", "--config", str(path)])
    return path, sealed.materialize(sealed.read(folder / "run" / "checkpoints" / "last.ckpt"))


def drop(*keys: str | int) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: object, *keys: str | int) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


DAMAGE = {
    "no loops": (drop("loops"), "loops must be a dict, found nothing"),
    "no loop of training": (drop("loops", "fit_loop"), "loops.fit_loop must be a dict, found nothing"),
    "no progress": (drop("loops", "fit_loop", PROGRESS), f"loops.fit_loop.{PROGRESS} must be a dict"),
    "progress of texts": (put("x", "loops", "fit_loop", PROGRESS, "total", "ready"), "ready must be a int"),
    "progress below zero": (put(-1, "loops", "fit_loop", "epoch_progress", "current", "completed"), "found -1"),
    "no epoch": (drop("epoch"), "epoch must be a int, found nothing"),
    "a step that is a text": (put("8", "global_step"), "global_step must be a int, found a str"),
    "optimisers that are none": (put({}, "optimizer_states"), "optimizer_states must be a list"),
    "an optimiser without groups": (put([{"state": {}}], "optimizer_states"), "param_groups must be"),
    "other groups": (put([{"state": {}, "param_groups": []}], "optimizer_states"), "param"),
    "a schedule that is none": (put([7], "lr_schedulers"), "cannot be restored"),
    "a callback that is none": (put([7], "callbacks"), "callbacks must be a dict"),
    "weights that are gone": (lambda content: content["state_dict"].popitem(), "state_dict"),
    "weights of another shape": (
        lambda content: content["state_dict"].update({next(iter(content["state_dict"])): torch.zeros(3)}),
        "",
    ),
    "a superfluous tensor": (
        put(torch.zeros(3), *STATE, 0, "extra"),
        "[0].state[0].extra is nothing that the optimiser keeps",
    ),
    "a state of no parameter": (
        put({"step": torch.ones(())}, *STATE, 999),
        "state[999] belongs to no parameter; there are",
    ),
    "a moment of another shape": (
        put(torch.zeros(3, 3), *STATE, 0, "exp_avg"),
        "exp_avg must be a tensor of shape (2, 1, 3, 3), found",
    ),
    "a moment that is gone": (drop(*STATE, 0, "exp_avg_sq"), "state[0].exp_avg_sq must be a tensor"),
    "a moment that is no tensor": (put("x", *STATE, 0, "exp_avg"), "found str"),
    "a moment that is not finite": (
        lambda content: content["optimizer_states"][0]["state"][0]["exp_avg"].fill_(torch.nan),
        "exp_avg must be finite",
    ),
    "a step below zero": (put(torch.tensor(-1.0), *STATE, 0, "step"), "state[0].step must be 0 or more, found -1"),
    "a parameter's state that is none": (put(7, *STATE, 0), "state[0] must be a dict, found a int"),
    "parameters that are not numbered": (put("all", *GROUP, "params"), "param_groups must list"),
    "parameters numbered twice": (
        lambda content: content["optimizer_states"][0]["param_groups"][0]["params"].__setitem__(0, 1),
        "param_groups must number each parameter once",
    ),
    "no version": (drop("pytorch-lightning_version"), "version must be a str, found nothing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_training_state_is_one_sentence(
    name: str, trained: tuple[Path, dict], tmp_path: Path, capsys
) -> None:
    path, whole = trained
    change, message = DAMAGE[name]
    content = sealed.materialize(whole)
    change(content)
    sealed.write(content, tmp_path / "damaged.ckpt")
    with pytest.raises(SystemExit) as stopped:
        arguments = ["--ckpt_path", str(tmp_path / "damaged.ckpt"), "--run_dir", str(tmp_path / "run")]
        main(["fit", "--config", str(path), "--trainer.max_epochs=2", *arguments])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and said.startswith("error: ") and message in said and "damaged.ckpt" in said
