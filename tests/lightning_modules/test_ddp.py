"""Two gloo processes: in sync, every utterance once, the same word error rate as one process, no hang when one dies."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from datamodules import Speech
from robust_asr.checkpoint import load
from robust_asr.metrics import ErrorRates
from tests.command_line import curve, train, write_config
from tests.lightning_modules.test_resume import settings

# The dev part then has 5 batches: one rank has a batch more than the other.
MAX_DURATION = 4.0


@pytest.fixture(scope="module")
def two_ranks(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    config = settings(tiny_manifests, folder / "run", 2, 0, [])
    config["data"]["init_args"]["max_duration"] = MAX_DURATION
    config["trainer"]["max_epochs"] = 2
    config["trainer"]["callbacks"] = [
        {"class_path": "tests.callbacks.RecordBatches", "init_args": {"path": str(folder / "batches")}},
        {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(folder / "weights")}},
    ]
    result = train("fit", "--config", write_config(folder / "c.yaml", config))
    assert result.returncode == 0, result.stdout
    return folder


def test_parameters_stay_in_sync(two_ranks: Path) -> None:
    assert (two_ranks / "weights.0").read_text() == (two_ranks / "weights.1").read_text()


def test_no_utterance_twice_or_missing(two_ranks: Path, tiny_manifests: Path) -> None:
    lines = [line.split() for rank in (0, 1) for line in (two_ranks / f"batches.{rank}").read_text().splitlines()]
    per_epoch: dict[str, list[str]] = {}
    for epoch, _, *ids in lines:
        per_epoch.setdefault(epoch, []).extend(ids)
    everything = sorted(per_epoch["0"])
    assert len(everything) == 40
    assert all(sorted(ids) == sorted(set(everything)) for ids in per_epoch.values())
    orders = {epoch: ids for epoch, ids in per_epoch.items()}
    assert orders["0"] != orders["1"], "every epoch has its own order"


def test_validation_equals_one_process(two_ranks: Path, tiny_manifests: Path) -> None:
    data = Speech(manifests=str(tiny_manifests), train=["train"], validate=["dev"], max_duration=MAX_DURATION)
    data.setup("validate")
    assert len(data.val_dataloader()[0]) % 2 == 1
    recognizer = load(str(two_ranks / "run" / "checkpoints" / "last.ckpt"))
    metric = ErrorRates()
    for batch in data.val_dataloader()[0]:
        transcripts = recognizer.transcribe(batch.waveforms, batch.lengths)
        metric.update(list(batch.texts), [transcript.text for transcript in transcripts])
    logged = [row for row in curve(two_ranks / "run") if row.get("val/dev/wer")][-1]
    rates = metric.compute()
    assert float(logged["val/dev/wer"]) == pytest.approx(float(rates["wer"]), abs=1e-7)
    assert float(logged["val/dev/cer"]) == pytest.approx(float(rates["cer"]), abs=1e-7)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_within_a_minute(rank: int, tiny_manifests: Path, tmp_path: Path) -> None:
    config = settings(tiny_manifests, tmp_path / "run", 2, 0, [])
    config["trainer"]["callbacks"] = [
        {"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": 0, "batch": 2, "rank": rank}}
    ]
    start = time.monotonic()
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config), timeout=600)
    # Lightning's rank zero starts the other.
    assert result.returncode == (1 if rank else -signal.SIGKILL), result.stdout
    assert time.monotonic() - start < 90, "60 s after the kill, and what the start takes"
    assert "Traceback" not in result.stdout
    (sentence,) = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert f"rank {rank} " in sentence and f"rank {1 - rank} leaves" in sentence


def test_a_non_finite_loss_of_one_rank_stops_all_with_the_ids(tiny_manifests: Path, tmp_path: Path) -> None:
    config = settings(tiny_manifests, tmp_path / "run", 2, 0, [])
    config["trainer"]["callbacks"] = [
        {"class_path": "tests.callbacks.RecordBatches", "init_args": {"path": str(tmp_path / "batches")}},
        {"class_path": "tests.callbacks.PoisonAt", "init_args": {"epoch": 1, "batch": 1, "rank": 1}},
    ]
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config), timeout=600)
    assert result.returncode != 0
    (sentence,) = {line for line in result.stdout.splitlines() if "the loss is not finite" in line}
    _, _, *ids = (tmp_path / "batches.1").read_text().splitlines()[-1].split()
    _, _, *others = (tmp_path / "batches.0").read_text().splitlines()[-1].split()
    assert all(repr(utterance) in sentence for utterance in ids)
    assert not any(repr(utterance) in sentence for utterance in others)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
