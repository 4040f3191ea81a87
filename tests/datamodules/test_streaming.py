"""Shards: every worker of every rank reads its own, for ever."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from datamodules import Speech
from datamodules.collate import Utterances
from datamodules.preparing.librispeech import prepare_corpus
from datamodules.streaming import ShardStream
from datamodules.training_set import Selection
from tests.datamodules.test_resume import Recorder


@pytest.fixture(scope="module")
def sharded(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shards of at most five utterances."""
    out = tmp_path_factory.mktemp("sharded")
    prepare_corpus(corpus, out, parts=["train"], shar=True, shard_size=5, num_jobs=1)
    assert len(list((out / "train-shar").glob("cuts.*.jsonl.gz"))) == 10
    return out


def _stream(sharded: Path, *, rank: int = 0, world_size: int = 1, speeds: tuple[float, ...] = (1.0,)) -> ShardStream:
    return ShardStream(
        [sharded / "train-shar"],
        Utterances(sample_rate=16_000),
        Selection(speeds=speeds),
        max_duration=1.0,
        num_buckets=2,
        seed=0,
        rank=rank,
        world_size=world_size,
        buffer_size=12,
    )


def _loader(stream: ShardStream, num_workers: int) -> DataLoader:
    return DataLoader(stream, batch_size=None, num_workers=num_workers)


def test_a_stream_brings_every_utterance_with_the_samples_of_its_file(sharded: Path, manifests: Path):
    data = Speech(str(manifests), test=["train"])
    data.setup("test")
    files = {
        utterance: (text, row[:length])
        for batch in data.test_dataloader()[0]
        for utterance, text, row, length in zip(batch.ids, batch.texts, batch.waveforms, batch.lengths, strict=True)
    }
    seen = set()
    for batch in islice(_stream(sharded), 60):
        for utterance, text, row, length in zip(batch.ids, batch.texts, batch.waveforms, batch.lengths, strict=True):
            assert files[utterance][0] == text
            torch.testing.assert_close(row[:length], files[utterance][1], rtol=0, atol=0)
            seen.add(utterance)
    assert seen == files.keys()


def test_two_ranks_of_two_workers_read_disjoint_utterances(sharded: Path):
    seen = [
        {
            utterance
            for batch in islice(_loader(_stream(sharded, rank=rank, world_size=2), 2), 40)
            for utterance in batch.ids
        }
        for rank in range(2)
    ]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 47


def test_epochs_differ_and_repeat_exactly(sharded: Path):
    def first(epoch: int) -> list[tuple[str, ...]]:
        stream = _stream(sharded)
        stream.set_epoch(epoch)
        return [batch.ids for batch in islice(stream, 5)]

    assert first(0) == first(0) != first(1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_goes_on_with_the_next_batch(num_workers: int, sharded: Path):
    whole = [batch.ids for batch in islice(_loader(_stream(sharded), num_workers), 9)]
    for done in (1, 2, 5):
        resumed = _stream(sharded)
        resumed.resume_at(epoch=0, num_batches=done)
        rest = [batch.ids for batch in islice(_loader(resumed, num_workers), 9 - done)]
        assert rest == whole[done:]


def test_lightning_trains_on_a_stream_and_shuffles_it_anew(sharded: Path):
    def trainer(**options) -> pl.Trainer:
        return pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=2,
            use_distributed_sampler=False,
            **options,
        )

    data = Speech(str(sharded), train=["train"], shar=True, max_duration=1.0, speed_perturb=True)
    module = Recorder()
    trainer(limit_train_batches=6).fit(module, datamodule=data)
    epochs = [[ids for epoch, ids in module.seen if epoch == wanted] for wanted in range(2)]
    assert [len(epoch) for epoch in epochs] == [6, 6]
    assert epochs[0] != epochs[1]
    with pytest.raises(ValueError, match="limit_train_batches must be a number of batches"):
        trainer().fit(Recorder(), datamodule=Speech(str(sharded), train=["train"], shar=True))


def test_too_few_shards_and_no_shards_are_errors(sharded: Path, manifests: Path):
    with pytest.raises(ValueError, match="10 shards cannot be shared by 11 ranks of 1 workers"):
        next(iter(_stream(sharded, world_size=11)))
    with pytest.raises(ValueError, match="there are no shards in"):
        Speech(str(manifests), train=["train"], shar=True).setup("fit")


@pytest.mark.parametrize("damage", [b"", b"\0" * 2_000, b"not a tar file" * 200])
def test_a_damaged_shard_is_named(damage: bytes, corpus: Path, tmp_path: Path):
    prepare_corpus(corpus, tmp_path, parts=["dev"], shar=True, num_jobs=1)
    (shard,) = (tmp_path / "dev-shar").glob("*.tar")
    content = shard.read_bytes()
    shard.write_bytes(damage or content[: len(content) // 2])
    data = Speech(str(tmp_path), train=["dev"], shar=True)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"recording\.000000\.tar: "):
        next(iter(data.train_dataloader()))


def test_a_link_as_a_shard_is_refused(corpus: Path, tmp_path: Path):
    prepare_corpus(corpus, tmp_path, parts=["dev"], shar=True, num_jobs=1)
    (shard,) = (tmp_path / "dev-shar").glob("*.tar")
    shard.rename(tmp_path / "elsewhere.tar")
    shard.symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(ValueError, match=r"recording\.000000\.tar is missing or not a regular file"):
        Speech(str(tmp_path), train=["dev"], shar=True).setup("fit")
