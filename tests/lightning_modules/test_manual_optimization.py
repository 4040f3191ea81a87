"""Two optimisers stepped by hand, through the same command line: what is counted is batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lightning_modules.command_line.cli import main
from tests.command_line import ROOT, curve, train, write_config

HEAD_START = 3


def settings(manifests: Path, run_dir: Path, callbacks: list[dict]) -> dict:
    """The CPU fragment, and an optimiser of each kind. The critic starts after an odd number of batches, saving is even."""
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}}
    return {
        "fragments": {"trainer": str(ROOT / "configs" / "trainer" / "cpu.yaml")},
        "run_dir": str(run_dir),
        "model": {
            "class_path": "tests.two_optimizers.Duel",
            "init_args": {"model_optimizer": adam, "critic_optimizer": sgd, "head_start": HEAD_START},
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {"manifests": str(manifests), "train": ["train"], "max_duration": 8.0, "num_buckets": 2},
        },
        "trainer": {
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "enable_model_summary": False,
            "callbacks": callbacks,
        },
        "checkpoint": {"every_n_steps": 2, "monitor": None},
    }


def fit(folder: Path, manifests: Path, callbacks: list[dict], *more: str) -> object:
    record = {"class_path": "tests.callbacks.RecordSaves", "init_args": {"path": str(folder / "saves")}}
    config = settings(manifests, folder / "run", [*callbacks, record])
    return train("fit", "--config", write_config(folder / "c.yaml", config), *more)


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def uninterrupted(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = fit(folder, tiny_manifests, [])
    assert result.returncode == 0, result.stdout
    return folder


def saves(folder: Path) -> list[tuple[int, int]]:
    return [tuple(map(int, line.split())) for line in (folder / "saves").read_text().splitlines()]


def test_it_saves_every_second_batch_and_logs_a_row_a_batch(uninterrupted: Path) -> None:
    rows = curve(uninterrupted / "run")
    ends = [sum(row["epoch"] == epoch for row in rows) for epoch in ("0", "1")]
    assert [int(row["step"]) for row in rows] == list(range(sum(ends)))
    assert ends[0] > HEAD_START + 3
    steps = [(epoch, batch) for epoch in (0, 1) for batch in range(1, ends[epoch])]
    even = [(epoch, batch) for epoch, batch in steps if (epoch * ends[0] + batch) % 2 == 0]
    assert saves(uninterrupted) == sorted([*even, (0, ends[0]), (1, ends[1])])
    # Lightning's own count is no number of batches.
    assert checkpoint(uninterrupted)["global_step"] == 2 * sum(ends) - HEAD_START
    with (uninterrupted / "run" / "metrics.csv").open() as file:
        assert "time/audio_seconds_per_second" in file.readline()


@pytest.mark.parametrize(("epoch", "batch"), [(0, 5), (1, 2)])
def test_killed_and_resumed_both_optimizers_are_bit_identical(
    epoch: int, batch: int, uninterrupted: Path, tiny_manifests: Path, tmp_path: Path
) -> None:
    kill = {"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": epoch, "batch": batch}}
    first = fit(tmp_path, tiny_manifests, [kill])
    assert first.returncode == -9, first.stdout
    second = fit(tmp_path, tiny_manifests, [], "--ckpt_path", "last")
    assert second.returncode == 0, second.stdout
    resumed, expected = checkpoint(tmp_path), checkpoint(uninterrupted)
    assert len(expected["optimizer_states"]) == 2
    for part in ("state_dict", "optimizer_states", "global_step", "epoch"):
        torch.testing.assert_close(resumed[part], expected[part], rtol=0, atol=0)
    assert curve(tmp_path / "run") == curve(uninterrupted / "run")
    assert set(saves(tmp_path)) == set(saves(uninterrupted))


def test_two_processes_end_with_the_same_weights(tiny_manifests: Path, tmp_path: Path) -> None:
    record = {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(tmp_path / "weights")}}
    config = settings(tiny_manifests, tmp_path / "run", [record])
    # Each backward pass leaves out the parameters of the other optimiser.
    gloo = {"process_group_backend": "gloo", "find_unused_parameters": True}
    strategy = {"class_path": "pytorch_lightning.strategies.DDPStrategy", "init_args": gloo}
    config["trainer"] |= {"devices": 2, "strategy": strategy}
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config))
    assert result.returncode == 0, result.stdout
    first, second = ((tmp_path / f"weights.{rank}").read_text() for rank in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("optimizer", {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}),
        ("trainer.gradient_clip_val", 5.0),
        ("trainer.accumulate_grad_batches", 2),
    ],
)
def test_what_only_automatic_optimisation_knows_is_refused(
    section: str, value: object, tiny_manifests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tiny_manifests, tmp_path / "run", [])
    *parents, last = section.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--allow_module", "tests"])
    assert f"error: {section}: Duel steps its optimisers itself" in capsys.readouterr().err


def test_an_optimizer_that_no_configuration_may_name_is_refused(
    tiny_manifests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load(yaml.safe_dump(settings(tiny_manifests, tmp_path / "run", [])))
    config["model"]["init_args"]["critic_optimizer"] = {"class_path": "os.system", "init_args": {"command": "true"}}
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--allow_module", "tests"])
    assert "critic_optimizer" in (message := capsys.readouterr().err) and "os.system" in message
