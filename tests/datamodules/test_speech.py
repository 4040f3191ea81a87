"""The datamodule as Lightning uses it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from datamodules import Speech
from datamodules.fixed_batches import MAX_PADDING
from datamodules.preparing.librispeech import prepare_corpus
from robust_asr.types import AudioBatch
from tests.datamodules.conftest import write_utterance


class Listener(pl.LightningModule):
    """Writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard: dict[int, list[str]] = {}

    def training_step(self, batch: AudioBatch, batch_idx: int):
        assert isinstance(batch, AudioBatch)
        self.heard.setdefault(-1, []).extend(batch.ids)
        return self.weight.sum()

    def _evaluate(self, batch: AudioBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.heard.setdefault(dataloader_idx, []).extend(batch.ids)

    validation_step = test_step = predict_step = _evaluate

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(**options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=1,
        **options,
    )


def _ids(part: str, manifests: Path) -> list[str]:
    module = Speech(str(manifests), test=[part])
    module.setup("test")
    return sorted(utterance for batch in module.test_dataloader()[0] for utterance in batch.ids)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_stage_brings_every_utterance_of_every_part_once(num_workers: int, manifests: Path, tmp_path: Path):
    other = str(manifests / "dev.jsonl.gz")
    data = Speech(
        str(manifests),
        train=["train"],
        validate=["dev", "train"],
        test=["train", other],
        num_workers=num_workers,
        max_duration=5,
    )
    assert data.dataloader_names("validate") == ["dev", "train"]
    assert data.dataloader_names("test") == data.dataloader_names("predict") == ["train", f"{manifests.name}-dev"]
    expected = {part: _ids(part, manifests) for part in ("train", "dev")}
    assert len(expected["train"]) == 47 and len(expected["dev"]) == 11
    for run, order in (
        ("fit", ["dev", "train"]),
        ("validate", ["dev", "train"]),
        ("test", ["train", "dev"]),
        ("predict", ["train", "dev"]),
    ):
        listener = Listener()
        options = {"return_predictions": False} if run == "predict" else {}
        getattr(_trainer(num_sanity_val_steps=0), run)(listener, datamodule=data, **options)
        for index, part in enumerate(order):
            assert sorted(listener.heard[index]) == expected[part], (run, part)
        if run == "fit":
            assert sorted(listener.heard[-1]) == expected["train"]


def test_training_begins_with_a_summary(manifests: Path, caplog):
    data = Speech(str(manifests), train=["train"], min_seconds=0.3, speed_perturb=True)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
        data.setup("fit")
    (line,) = [record.message for record in caplog.records if "training on train" in record.message]
    for part in (
        "hours",
        "utterances (3 speeds of ",
        "buckets",
        "% padding",
        "outside 0.3 to 35 s left out, the first is ",
    ):
        assert part in line


def test_evaluation_leaves_nothing_out(tmp_path: Path):
    for index, seconds in enumerate((0.02, 40.0, 0.5)):
        write_utterance(tmp_path / "corpus", "dev", f"1-1-{index}", "TEXT", seconds=seconds)
    prepare_corpus(tmp_path / "corpus", tmp_path / "out", num_jobs=1)
    data = Speech(str(tmp_path / "out"), train=["dev"], validate=["dev"], max_duration=10)
    data.setup("fit")
    assert sum(len(batch) for batch in data.val_dataloader()[0]) == 3
    assert [batch.ids for batch in data.train_dataloader()] == [("1-1-2",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ["nothing"]}, "there is no manifest .*nothing"),
        ({}, "train: names no part"),
        ({"train": ["train"], "min_seconds": 9.0}, "no utterance lies between"),
        ({"train": ["train", "train"]}, "field 'id' occurs in another training manifest too"),
    ],
)
def test_wrong_parts_are_one_error(options, message, manifests: Path):
    with pytest.raises(ValueError, match=message):
        Speech(str(manifests), **options).setup("fit")


@pytest.mark.parametrize(
    "name", ["sample_rate", "max_duration", "num_buckets", "num_workers", "cache_gigabytes", "min_seconds"]
)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_senseless_numbers_are_named(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        Speech("manifests", **{name: value})


def test_unknown_batching_is_named():
    with pytest.raises(ValueError, match="evaluation_batching must be one of similar, equal, alone, found 'random'"):
        Speech("manifests", evaluation_batching="random")


@pytest.mark.shared_data
def test_an4_and_librispeech_are_read_by_the_same_class(real_manifests: Path):
    for corpus, part, texts in (("an4", "test", "YES"), ("LibriSpeech", "dev-clean", "MISTER QUILTER")):
        data = Speech(str(real_manifests / corpus), test=[part])
        data.setup("test")
        batches = list(data.test_dataloader()[0])
        assert any(text.startswith(texts) for batch in batches for text in batch.texts)
        samples = sum(int(batch.lengths.sum()) for batch in batches)
        assert 1 - samples / sum(batch.waveforms.numel() for batch in batches) <= MAX_PADDING
        assert all(0.01 < batch.waveforms.abs().max() <= 1 for batch in batches)
