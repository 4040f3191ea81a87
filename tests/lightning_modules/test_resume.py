"""A run killed with SIGKILL and resumed ends with the same bits and the same curve as one that was never interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.command_line import curve, final_state, small_config, train, write_config

AVERAGING = [
    {"class_path": "lightning_modules.callbacks.averaging.LastEpochsAveraging", "init_args": {"num_epochs": 2}}
]
EMA = [{"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}]
KILL = "tests.callbacks.KillAt"


def settings(manifests: Path, run_dir: Path, ranks: int, workers: int, callbacks: list) -> dict:
    config = small_config(manifests, run_dir, trainer__callbacks=callbacks, data__init_args__num_workers=workers)
    if ranks > 1:
        config["trainer"] |= {
            "devices": ranks,
            "strategy": {
                "class_path": "pytorch_lightning.strategies.DDPStrategy",
                "init_args": {"process_group_backend": "gloo"},
            },
        }
    return config


@pytest.fixture(scope="module")
def uninterrupted(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs without a kill, each made once: by ranks and callbacks. The number of workers must not matter."""
    runs: dict[tuple[int, str], Path] = {}

    def run(ranks: int, callbacks: list) -> Path:
        key = (ranks, str(callbacks))
        if key not in runs:
            folder = tmp_path_factory.mktemp("reference")
            config = settings(tiny_manifests, folder / "run", ranks, 0, callbacks)
            result = train("fit", "--config", write_config(folder / "c.yaml", config))
            assert result.returncode == 0, result.stdout
            runs[key] = folder / "run"
        return runs[key]

    return run


def assert_same_run(run_dir: Path, reference: Path) -> None:
    expected = final_state(reference)
    found = final_state(run_dir)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert curve(run_dir) == curve(reference)


CASES = [
    pytest.param(1, 2, 1, 3, AVERAGING, id="1 rank, 2 workers, later epoch, averaging"),
    pytest.param(2, 0, 0, 2, [], id="2 ranks, 0 workers, first epoch"),
    *(
        pytest.param(
            ranks,
            workers,
            epoch,
            batch,
            callbacks,
            marks=pytest.mark.long,
            id=f"{ranks}-{workers}-{epoch}-{batch}-{name}",
        )
        for ranks in (1, 2)
        for workers in (0, 2)
        for epoch in (0, 1, 2)
        for batch in (0, 1, 2)
        for name, callbacks in (("averaging", AVERAGING), ("ema", EMA))
        if (name == "ema") == (batch == 1)
        # The first checkpoint is written after two batches.
        and (epoch, batch) >= (0, 2)
    ),
]


@pytest.mark.parametrize(("ranks", "workers", "epoch", "batch", "callbacks"), CASES)
def test_killed_and_resumed_is_bit_identical(
    ranks: int,
    workers: int,
    epoch: int,
    batch: int,
    callbacks: list,
    uninterrupted,
    tiny_manifests: Path,
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    kill = [{"class_path": KILL, "init_args": {"epoch": epoch, "batch": batch}}]
    config = settings(tiny_manifests, run_dir, ranks, workers, callbacks)
    killed = write_config(
        tmp_path / "killed.yaml",
        {**config, "trainer": {**config["trainer"], "callbacks": [*callbacks, *kill]}},
    )
    resumed = write_config(tmp_path / "resumed.yaml", config)

    first = train("fit", "--config", killed)
    assert first.returncode != 0, first.stdout
    assert (run_dir / "checkpoints" / "last.ckpt").exists(), "every case is killed after the first checkpoint"
    second = train("fit", "--config", resumed, "--ckpt_path", "last")
    assert second.returncode == 0, second.stdout
    assert_same_run(run_dir, uninterrupted(ranks, callbacks))


@pytest.mark.parametrize("name", ["SIGUSR1", pytest.param("SIGTERM", marks=pytest.mark.long), "SIGINT"])
def test_signal_saves_between_two_batches_and_exits_with_75(
    name: str, uninterrupted, tiny_manifests: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    config = settings(tiny_manifests, run_dir, 1, 0, AVERAGING)
    signalled = {"class_path": KILL, "init_args": {"epoch": 1, "batch": 2, "signal_name": name}}
    first = train(
        "fit",
        "--config",
        write_config(
            tmp_path / "signalled.yaml",
            {
                **config,
                "trainer": {**config["trainer"], "callbacks": [*AVERAGING, signalled]},
            },
        ),
    )
    assert first.returncode == 75, first.stdout
    assert f"stopped by {name} after" in first.stdout and "go on with --ckpt_path last" in first.stdout
    second = train("fit", "--config", write_config(tmp_path / "c.yaml", config), "--ckpt_path", "last")
    assert second.returncode == 0, second.stdout
    assert_same_run(run_dir, uninterrupted(1, AVERAGING))
