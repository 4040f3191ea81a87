"""What a run prints of its progress: one bar, how much there is of it, and how long it still takes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from datamodules import Speech
from lightning_modules.callbacks import progress, time_left
from lightning_modules.callbacks.progress import RunProgress
from lightning_modules.callbacks.time_left import TimeLeft, training_batches_left
from lightning_modules.recognition import Recognition
from tests.toys import ToyCTC

TIME = r"\d+:\d\d(:\d\d)?"


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_left, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_IN_A_FILE", 0.0)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    printed = capsys.readouterr().out.replace("\r", "\n").split("\n")
    return [line.strip() for line in printed if " batches" in line and "training on" not in line]


def trainer(**settings: object) -> pl.Trainer:
    shown = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(callbacks=[RunProgress()], use_distributed_sampler=False, **{**shown, **settings})


def test_a_bucketed_epoch_knows_its_length_and_the_run_its_end(
    tiny_manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Speech(str(tiny_manifests), train=["train"], validate=["dev"], max_duration=8.0, num_buckets=2)
    module = Recognition(ToyCTC())
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.001)
    trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, datamodule=data)
    printed = lines(capsys)
    sizes = [data.num_batches(epoch) for epoch in range(2)]
    for epoch, size in enumerate(sizes, start=1):
        bar = [line for line in printed if line.startswith(f"epoch {epoch}/2:")]
        counts = [int(count) for line in bar for count in re.findall(rf"(\d+)/{size} batches", line)]
        assert len(counts) == len(bar) and sorted(counts) == counts and set(counts) == set(range(size + 1))
        assert any("validating 1/" in line for line in bar)
        assert all(re.search(rf"\[{TIME}, {TIME} left, train/loss=", line) for line in bar if f" 0/{size}" not in line)
    assert re.search(
        rf"100%\|█{{20}}\| {sizes[1]}/{sizes[1]} batches \[{TIME}, 00:00 left, train/loss=.*val/wer=", printed[-1]
    )
    assert all(line.startswith("epoch ") for line in printed), "a bar within the bar"


class Endless(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(5, 1))


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_an_epoch_of_unknown_length_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_epochs=1).fit(Tiny(), DataLoader(Endless(), batch_size=None))
    assert re.fullmatch(
        rf"epoch 1/1: 5 batches, their number is unknown \[{TIME}, time left unknown\]", lines(capsys)[-1]
    )


class Evaluated(pl.LightningModule):
    """A test of two sets whose batches take two cells each."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        for cell in ("clean", "attacked"):
            self.trainer.progress_bar_callback.say(cell, share=0.5)


def test_an_evaluation_is_one_bar_over_all_its_sets(capsys: pytest.CaptureFixture[str]) -> None:
    sets = [DataLoader(torch.zeros(size, 1), batch_size=1) for size in (2, 3)]
    trainer().test(Evaluated(), sets)
    printed = lines(capsys)
    assert all(re.match(r"test: +\d+%\|.{20}\| \d/5 batches \[", line) for line in printed)
    # The time that is left is known after the first cell of the first batch.
    assert "time left unknown, clean]" in printed[1] and re.search(f"{TIME} left, attacked\\]", printed[2])
    assert re.fullmatch(rf"test: 100%\|█{{20}}\| 5/5 batches \[{TIME}, 00:00 left\]", printed[-1])


@pytest.mark.parametrize(
    ("settings", "left"), [({"max_epochs": 3}, 2 * 4 + 1), ({"max_steps": 9, "max_epochs": -1}, 6)]
)
def test_what_is_left_is_left_of_the_whole_run(settings: dict, left: int) -> None:
    run = SimpleNamespace(**{"max_epochs": None, "max_steps": -1, "current_epoch": 0, "global_step": 3, **settings})
    assert training_batches_left(run, of_epoch=4, done=3, batches_a_step=1.0) == left


def test_two_steps_a_batch_halve_the_batches_that_are_left() -> None:
    run = SimpleNamespace(max_epochs=-1, max_steps=20, current_epoch=0, global_step=8)
    assert training_batches_left(run, of_epoch=None, done=4, batches_a_step=0.5) == 6
    assert training_batches_left(run, of_epoch=None, done=0, batches_a_step=0.0) is None


def test_time_left_follows_from_finished_batches(clock: Clock) -> None:
    left = TimeLeft()
    assert left.seconds(5) is None
    clock.now += 3
    left.finish_batch()
    assert left.seconds(5) == 15 and left.seconds(None) is None


def test_cells_of_a_batch_count_and_what_was_skipped_does_not(clock: Clock) -> None:
    left = TimeLeft()
    for _ in range(2):
        left.finish_batch()
    left.begin_share(0.0)
    clock.now += 60
    for _ in range(3):
        left.begin_share(0.25)
        clock.now += 10
    left.begin_share(0.25)
    # Of this batch a quarter is left, and three whole ones: 13 cells of 10 seconds.
    assert left.seconds(4) == pytest.approx(130)
    clock.now += 10
    left.finish_batch()
    assert left.seconds(3) == pytest.approx(120)
