"""A sweep of W&B: every run has a folder of its own, in which it goes on after a preemption."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lightning_modules.command_line.expansion import at_home, expand
from lightning_modules.command_line.sweep import in_sweep
from lightning_modules.loggers import check_run_id, wandb_run_id
from tests.command_line import ROOT

SWEEP = ROOT / "recipes" / "quickstart" / "sweep.yml"


def agents_command(values: dict) -> list[str]:
    """The command that W&B's agent starts for one run of the sweep, without the interpreter and the program."""
    parameters = {name: {"value": value} for name, value in values.items()}
    flags = create_sweep_command_args({"args": parameters})["args_no_hyphens"]
    command = yaml.safe_load(SWEEP.read_text())["command"]
    assert command[:2] == ["${interpreter}", "${program}"] and command[-1] == "${args_no_hyphens}"
    return [*command[2:-1], *flags]


@pytest.fixture
def in_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_root")
def test_the_sweep_sets_values_of_its_recipe(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    names = yaml.safe_load(SWEEP.read_text())["parameters"]
    folders = set()
    for number, eps in enumerate(names["eps_max"]["values"]):
        monkeypatch.setenv("WANDB_RUN_ID", f"Run-{number}")
        arguments = in_sweep(expand(agents_command({"eps_max": eps})))
        (config,) = (text for text in arguments if text.startswith("--config="))
        attack = yaml.safe_load(config.removeprefix("--config="))["model"]["init_args"]["attack"]
        assert attack["init_args"]["threat"]["init_args"]["eps_max"] == eps
        folders.add(arguments[-1])
    assert folders == {f"--run_dir=runs/quickstart/adversarial/Run-{number}" for number in range(3)}


@pytest.mark.usefixtures("in_root")
def test_several_values_behind_one_option() -> None:
    recipe = "--config=recipes/quickstart/adversarial.yaml"
    together = expand(["fit", recipe, "--value", "eps_max=0.01", "lr=0.5", "--trainer.max_epochs=1"])
    assert together == expand(["fit", recipe, "--value=eps_max=0.01", "--value=lr=0.5", "--trainer.max_epochs=1"])
    with pytest.raises(ValueError, match=r"--value takes NAME=VALUE, found ''"):
        expand(["fit", recipe, "--value"])


def test_only_an_agent_changes_the_folder(monkeypatch) -> None:
    arguments = ["fit", "--config=run_dir: runs/a", "--run_dir", "runs/b"]
    monkeypatch.setenv("WANDB_RUN_ID", "one")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert in_sweep(arguments) == arguments
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert in_sweep(arguments) == arguments, "whoever names a folder means that folder"
    assert in_sweep(arguments[:2])[-1] == "--run_dir=runs/a/one"
    assert in_sweep(["fit"])[-1] == "--run_dir=runs/default/one"
    monkeypatch.setenv("WANDB_RUN_ID", "../up")
    with pytest.raises(ValueError, match="a W&B run id has"):
        in_sweep(["fit"])


@pytest.mark.parametrize("run_id", ["abc123", "Run-7", "of_the.agent", "mit Raum", "x" * 128])
def test_ids_that_wandb_takes(run_id: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", run_id)
    assert wandb_run_id(tmp_path) == run_id
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_run_id(tmp_path) == run_id


@pytest.mark.parametrize("run_id", ["", "a/b", "a:b", "a\\b", "..", " a", "a\n", "x" * 129, 7, None])
def test_ids_that_are_refused(run_id: object) -> None:
    with pytest.raises(ValueError, match="a W&B run id has 1 to 128 printable characters"):
        check_run_id(run_id)


def test_home_is_expanded_in_every_place(tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "home"
    (home / "parts").mkdir(parents=True)
    (home / "parts" / "trainer.yaml").write_text("max_epochs: 3\n")
    (home / "base.yaml").write_text(
        "values: ~/values.yaml\nseed_everything: $seed\nfragments: {trainer: ~/parts/trainer.yaml}\n"
    )
    (home / "values.yaml").write_text("seed: 1\n")
    (home / "more.yaml").write_text("seed: 5\n")
    (tmp_path / "recipe.yaml").write_text("recipe: ~/base.yaml\n")
    monkeypatch.setenv("HOME", str(home))
    for given, seed in (([], 1), (["--values=~/more.yaml"], 5), (["--values", "~/more.yaml"], 5)):
        (argument,) = expand(list(map(at_home, [f"--config={tmp_path / 'recipe.yaml'}", *given])))
        assert yaml.safe_load(argument.removeprefix("--config=")) == {
            "seed_everything": seed,
            "trainer": {"max_epochs": 3},
        }
    assert at_home("--ckpt_path=~/last.ckpt") == f"--ckpt_path={home}/last.ckpt" and at_home("a~b") == "a~b"
