"""What a logger, a callback or a profiler of a configuration may be told."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from lightning_modules.command_line import reach
from lightning_modules.command_line.reach import check_reach
from robust_asr.storage import trust

LIGHTNING = "pytorch_lightning"
CSV = f"{LIGHTNING}.loggers.CSVLogger"
BEST = f"{LIGHTNING}.callbacks.ModelCheckpoint"


def check(run_dir: Path, field: str, class_path: str, **arguments: Any) -> None:
    given = Namespace(class_path=class_path, init_args=Namespace(**arguments))
    check_reach(Namespace(**{field: [given] if field == "callbacks" else given}), run_dir=run_dir)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("runs/mine")


REFUSED = {
    "a server": ("logger", f"{LIGHTNING}.loggers.WandbLogger", {"base_url": "https://example.com"}, "WandbLogger"),
    "rows elsewhere": ("logger", CSV, {"save_dir": "runs/other"}, "save_dir: runs/other lies outside the run folder"),
    "rows in a bucket": ("logger", CSV, {"save_dir": "s3://bucket/x"}, "lies outside"),
    "rows by a name": (
        "logger",
        CSV,
        {"save_dir": "runs/mine", "name": "../other"},
        r"name: \.\./other must be a name",
    ),
    "over the run's rows": (
        "logger",
        CSV,
        {"save_dir": "runs/mine", "name": "", "version": ""},
        "would write over metrics.csv",
    ),
    "events elsewhere": (
        "logger",
        f"{LIGHTNING}.loggers.TensorBoardLogger",
        {"save_dir": "runs/mine", "version": "/tmp/x"},
        "version: /tmp/x",
    ),
    "what a library is told": (
        "logger",
        f"{LIGHTNING}.loggers.TensorBoardLogger",
        {"save_dir": "runs/mine", "filename_suffix": "/../x"},
        "filename_suffix: is no argument",
    ),
    "another run's checkpoints": (
        "callbacks",
        BEST,
        {"dirpath": "runs/other/checkpoints"},
        r"\[0\].dirpath: runs/other",
    ),
    "another run's checkpoint": ("callbacks", BEST, {"filename": "../../other/checkpoints/last"}, "filename"),
    "another run's last": (
        "callbacks",
        "lightning_modules.callbacks.checkpoints.LastCheckpoint",
        {"folder": "runs/other/checkpoints"},
        "is part of every run",
    ),
    "a function": (
        "callbacks",
        f"{LIGHTNING}.callbacks.StochasticWeightAveraging",
        {"swa_lrs": 0.1, "avg_fn": "torch.optim.SGD"},
        "avg_fn: is no argument",
    ),
    "a profile elsewhere": (
        "profiler",
        f"{LIGHTNING}.profilers.SimpleProfiler",
        {"dirpath": "/tmp", "filename": "x"},
        "dirpath: /tmp lies outside",
    ),
    "a profile by its name": (
        "profiler",
        f"{LIGHTNING}.profilers.AdvancedProfiler",
        {"filename": "/tmp/x"},
        "filename: /tmp/x must be a name",
    ),
}
ACCEPTED = {
    "rows below": ("logger", CSV, {"save_dir": "runs/mine/more", "name": "lightning_logs", "version": None}),
    "checkpoints below": ("callbacks", BEST, {"dirpath": "runs/mine/more", "filename": "{epoch}-{step}"}),
    "checkpoints at the default": ("callbacks", BEST, {"dirpath": None, "monitor": "val/wer"}),
    "an average": ("callbacks", f"{LIGHTNING}.callbacks.EMAWeightAveraging", {"decay": 0.9}),
    "defaults written out": (
        "callbacks",
        f"{LIGHTNING}.callbacks.StochasticWeightAveraging",
        {"swa_lrs": 0.1, "avg_fn": None},
    ),
    "samples": ("callbacks", "lightning_modules.callbacks.samples.DashboardSamples", {"num_samples": 2}),
    "a profile": ("profiler", f"{LIGHTNING}.profilers.SimpleProfiler", {"dirpath": None, "filename": "profile"}),
    "W&B": ("logger", "lightning_modules.loggers.RunWandbLogger", {"mode": "offline", "project": "x"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_reaches_further_is_named(name: str, run_dir: Path) -> None:
    field, class_path, arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"trainer\.{field}.*{message}"):
        check(run_dir, field, class_path, **arguments)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_stays_passes(name: str, run_dir: Path) -> None:
    field, class_path, arguments = ACCEPTED[name]
    check(run_dir, field, class_path, **arguments)


def test_a_link_is_followed(run_dir: Path, tmp_path: Path) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "more").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="lies outside"):
        check(run_dir, "logger", CSV, save_dir="runs/mine/more")


def test_keyword_arguments_are_arguments(run_dir: Path) -> None:
    given = Namespace(class_path=f"{LIGHTNING}.profilers.PyTorchProfiler", dict_kwargs={"on_trace_ready": "x"})
    with pytest.raises(ValueError, match="on_trace_ready: is no argument"):
        check_reach(Namespace(profiler=given), run_dir=run_dir)


def test_a_class_of_ones_own_may_do_what_it_wants(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    check(run_dir, "callbacks", f"{__name__}.Mine", folder="/tmp")


class Mine:
    pass


def test_every_class_of_the_allowlist_says_what_it_takes() -> None:
    for defined in trust.LIGHTNING:
        module, _, name = defined.rpartition(".")
        assert hasattr(importlib.import_module(module), name) and name in reach._ACCEPTED
        trust.check_name(defined)
        trust.check_name(f"{'.'.join(defined.split('.')[:2])}.{name}")
