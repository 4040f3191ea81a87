"""Runs ``train.py`` as a user does, on the tiny corpus."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from lightning_modules.command_line.expansion import expand

ROOT = Path(__file__).resolve().parent.parent


def full_settings(recipe: Path, *arguments: str) -> dict:
    """What a recipe becomes before jsonargparse reads it, with values of the command line."""
    (found,) = expand([f"--config={recipe}", *arguments])
    return yaml.safe_load(found.removeprefix("--config="))


def small_config(manifests: Path, run_dir: Path, **overrides: object) -> dict:
    """A run of a few seconds with everything on that exact resume has to get right: dropout, SpecAugment, a schedule."""
    config: dict = {
        "run_dir": str(run_dir),
        "seed_everything": 7,
        "model": {
            "class_path": "lightning_modules.recognition.Recognition",
            "init_args": {
                "recognizer": {
                    "class_path": "robust_asr.models.compact.CompactCTC",
                    "init_args": {},
                },
                "lr_interval": "step",
            },
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {
                "manifests": str(manifests),
                "train": ["train"],
                "validate": ["dev"],
                "max_duration": 8.0,
                "num_buckets": 2,
            },
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.97}},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 3,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "checkpoint": {"every_n_steps": 2},
    }
    for path, value in overrides.items():
        *parents, last = path.split("__")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


def write_config(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def train(
    *arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """``python train.py ARGUMENTS`` with one thread; stdout and stderr together in ``stdout``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments), "--allow_module", "tests"],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def final_state(run_dir: Path) -> dict[str, torch.Tensor]:
    """The weights in ``last.ckpt``."""
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def curve(run_dir: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what measures the clock."""
    with (run_dir / "metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if not key.startswith("time/")} for row in csv.DictReader(file)
        ]
