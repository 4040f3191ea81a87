"""Lightning's path of one GPU, from the command line to the checkpoint, on an emulated one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.results import read_evaluation
from robust_asr.storage import sealed
from tests.command_line import final_state, small_config, write_config
from tests.device import Device, emulated_device

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
# What Lightning and torch ask CUDA besides what tensors can do.
CUDA = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_capability": lambda *device: (7, 0),
    "is_current_stream_capturing": lambda: False,
    "get_rng_state_all": lambda: [],
    "memory_stats": lambda *device: {},
    "max_memory_allocated": lambda *device: 0,
    **dict.fromkeys(
        ("set_device", "empty_cache", "set_rng_state_all", "manual_seed", "manual_seed_all", "reset_peak_memory_stats"),
        lambda *given: None,
    ),
}


@pytest.fixture
def device() -> Iterator[Device]:
    with emulated_device() as emulated, mock.patch.multiple(torch.cuda, **CUDA):
        yield emulated


def config(manifests: Path, folder: Path, **overrides: object) -> dict:
    found = small_config(manifests, folder / "run", trainer__accelerator="cuda", **overrides)
    found["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    return found


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_fit_and_resume(precision: str, tiny_manifests: Path, tmp_path: Path, device: Device) -> None:
    averaging = {
        "class_path": "lightning_modules.callbacks.averaging.LastEpochsAveraging",
        "init_args": {"num_epochs": 2},
    }
    settings = config(
        tiny_manifests,
        tmp_path,
        trainer__precision=precision,
        trainer__max_epochs=1,
        trainer__limit_train_batches=3,
        trainer__limit_val_batches=1,
        trainer__callbacks=[averaging],
    )
    path = str(write_config(tmp_path / "c.yaml", settings))
    main(["fit", "--config", path])
    first = final_state(tmp_path / "run")
    main(["fit", "--config", path, "--trainer.max_epochs=3", "--ckpt_path=last"])
    last = final_state(tmp_path / "run")
    assert all(type(tensor) is torch.Tensor and tensor.device.type == "cpu" for tensor in last.values())
    changed = [name for name in last if last[name].is_floating_point() and not torch.equal(last[name], first[name])]
    # Half precision begins with a scale of the loss that is too large, and leaves out steps until it fits.
    assert changed or precision == "16-mixed"
    content = sealed.read(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["epoch"] == 2 and content["global_step"] > 0
    assert checkpoint.load(str(tmp_path / "run" / "checkpoints" / "last.ckpt")).width == TINY["width"]


def test_waits_of_a_step(tiny_manifests: Path, tmp_path: Path, device: Device) -> None:
    totals, steps = [], []
    for epochs in (1, 2):
        settings = config(tiny_manifests, tmp_path / str(epochs), trainer__max_epochs=epochs, checkpoint={})
        settings["trainer"] |= {"limit_val_batches": 0, "enable_checkpointing": True, "log_every_n_steps": 50}
        (tmp_path / str(epochs)).mkdir()
        device.waits.clear()
        main(["fit", "--config", str(write_config(tmp_path / str(epochs) / "c.yaml", settings))])
        inside = {place: count for place, count in device.waits.items() if "checkpoint" not in place[1]}
        totals.append(sum(inside.values()))
        steps.append(sealed.read(tmp_path / str(epochs) / "run" / "checkpoints" / "last.ckpt")["global_step"])
    assert (totals[1] - totals[0]) / (steps[1] - steps[0]) <= 30, device.waits


def test_evaluation(tiny_manifests: Path, tmp_path: Path, device: Device) -> None:
    from robust_asr.models.compact import CompactCTC

    torch.manual_seed(0)
    checkpoint.save(CompactCTC(**TINY), tmp_path / "model.ckpt")
    settings = config(tiny_manifests, tmp_path)
    systems = {
        "plain": {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": str(tmp_path / "model.ckpt")}}
    }
    pgd = {
        "class_path": "robust_asr.attacks.pgd.PGD",
        "init_args": {
            "threat": {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 0.01}},
            "num_iterations": 2,
        },
    }
    settings["model"] = {
        "class_path": "lightning_modules.evaluation.Evaluation",
        "init_args": {
            "systems": systems,
            "conditions": {"clean": {"class_path": "robust_asr.attacks.noise.Clean"}, "pgd": pgd},
        },
    }
    settings["data"]["init_args"] = {"manifests": str(tiny_manifests), "test": ["dev"]}
    for name in ("optimizer", "lr_scheduler", "checkpoint"):
        settings.pop(name)
    main(["test", "--config", str(write_config(tmp_path / "c.yaml", settings))])
    rows = read_evaluation(tmp_path / "run").rows
    assert len(rows) == 20 and not any("recounted" in row for row in rows)
