"""Training data larger than memory or scattered over a slow disk: shards (lhotse's Shar), read from front to back."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from lhotse import CutSet
from lhotse.cut import MonoCut
from lhotse.dataset.sampling.dynamic_bucketing import DynamicBucketer
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.collate import Utterances
from datamodules.sampling import Cost, Resumable, duration_bins
from datamodules.training_set import Inventory, Selection
from robust_asr.storage.audio import MAX_SAMPLES, SAMPLE_RATES
from robust_asr.types import AudioBatch


class ShardStream(Resumable, IterableDataset):
    """Endless batches from shards. Every worker of every rank reads shards of its own, in an order that each epoch shuffles.

    A finite stream would end at different times on different ranks, and they would wait for each other for ever: an
    epoch is a number of batches, the trainer's ``limit_train_batches``.

    Args:
        folders: each written by ``python -m datamodules.prepare ... --shar``.
        utterances: reads and collates.
        window_seconds: an utterance counts for at least so much, see ``robust_asr.models.base.Recognizer.window``.
        buffer_size: utterances that a worker holds, audio included, to draw batches from.

    Errors: ValueError names the folder, the shard or the cut.
    """

    def __init__(
        self,
        folders: list[Path],
        utterances: Utterances,
        selection: Selection,
        *,
        max_duration: float,
        num_buckets: int,
        seed: int,
        window_seconds: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        buffer_size: int = 1000,
    ) -> None:
        super().__init__()
        self.shards = [shard for folder in folders for shard in _shards(folder)]
        self.utterances, self.selection = utterances, selection
        self.max_duration, self.num_buckets, self.buffer_size = max_duration, num_buckets, buffer_size
        self.window_seconds = window_seconds
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.inventory = Inventory(selection)
        for cuts, _ in self.shards:
            for cut in CutSet.from_jsonl_lazy(cuts):
                self.inventory.add(_checked(cut, cuts), cuts)
        self.durations = self.inventory.durations()

    def texts(self) -> Iterator[tuple[str, str, str]]:
        """Folder, id and text of every utterance that is trained on."""
        for cuts, _ in self.shards:
            selected = (cut for cut in CutSet.from_jsonl_lazy(cuts) if self.selection.holds(cut.duration))
            yield from ((Path(cuts).parent.name, cut.id, cut.supervisions[0].text) for cut in selected)

    @property
    def fingerprint(self) -> str:
        return self.inventory.fingerprint

    def __iter__(self) -> Iterator[AudioBatch]:
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        # A loader takes batches from its workers in turn, and a new loader always begins with worker 0. After a resume the turn
        # may have been at another worker: worker 0 then reads that worker's shards, and the others follow.
        role = (number + self.num_done) % num_workers
        for index, cuts in enumerate(self._batches(role, num_workers)):
            if index >= len(range(role, self.num_done, num_workers)):
                yield self.utterances[cuts]

    def _batches(self, worker: int, num_workers: int) -> Iterator[CutSet]:
        return iter(
            DynamicBucketer(
                ((cut,) for cut in self.selection.copies(self._cuts(worker, num_workers))),
                duration_bins=duration_bins(self.durations, num_buckets=self.num_buckets),
                world_size=1,
                constraint=Cost(max_duration=self.max_duration, window_seconds=self.window_seconds),
                buffer_size=self.buffer_size,
                shuffle=True,
                rng=Random(f"cuts-{self.seed}-{self.epoch}-{self.rank}-{worker}"),
                # The same generator on every rank, so that ranks work on similar durations at the same time.
                bucket_rng=Random(f"buckets-{self.seed}-{self.epoch}-{worker}"),
            )
        )

    def _cuts(self, worker: int, num_workers: int) -> Iterator[MonoCut]:
        readers = self.world_size * num_workers
        if len(self.shards) < readers:
            raise ValueError(
                f"{len(self.shards)} shards cannot be shared by {self.world_size} ranks of {num_workers} workers; "
                "prepare with a smaller --shard-size"
            )
        order = self.shards.copy()
        Random(f"shards-{self.seed}-{self.epoch}").shuffle(order)
        mine = order[self.rank * num_workers + worker :: readers]
        while True:
            for shard in mine:
                yield from _read(shard)


def _shards(folder: Path) -> list[tuple[str, str]]:
    """The pairs of files (cuts, audio) of a folder: regular files, not links."""
    cuts = sorted(folder.glob("cuts.*.jsonl.gz"))
    if not cuts:
        raise ValueError(f"there are no shards in {folder}; `python -m datamodules.prepare ... --shar` writes them")
    pairs = [(path, folder / path.name.replace("cuts.", "recording.").replace(".jsonl.gz", ".tar")) for path in cuts]
    for path in (path for pair in pairs for path in pair):
        if not path.exists() or not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError(f"{path} is missing or not a regular file")
    return [(str(metadata), str(audio)) for metadata, audio in pairs]


def _read(shard: tuple[str, str]) -> Iterator[MonoCut]:
    metadata, audio = shard
    num_read = 0
    try:
        for cut in CutSet.from_shar(fields={"cuts": [metadata], "recording": [audio]}):
            _checked(cut, audio)
            if cut.recording.sources[0].type != "memory":
                raise ValueError(f"{audio}: cut {cut.id!r}: field 'source' must be audio in the shard")
            num_read += 1
            yield cut
    except (AssertionError, EOFError, KeyError, TypeError, OSError, tarfile.TarError) as error:
        raise ValueError(f"{audio}: is damaged ({type(error).__name__}: {error})") from error
    if num_read != (declared := sum(1 for _ in CutSet.from_jsonl_lazy(metadata))):
        raise ValueError(f"{audio}: ends after {num_read} of {declared} utterances")


def _checked(cut: MonoCut, source: str) -> MonoCut:
    name = getattr(cut, "id", None)
    if type(cut) is not MonoCut or cut.recording is None or len(cut.recording.sources) != 1:
        raise ValueError(f"{source}: cut {name!r}: field 'recording' must be one recording")
    recording = cut.recording
    if recording.sampling_rate not in SAMPLE_RATES or not 0 < recording.num_samples <= MAX_SAMPLES:
        raise ValueError(f"{source}: cut {name!r}: field 'recording' has an odd rate or length")
    if cut.start != 0 or not abs(cut.duration - recording.num_samples / recording.sampling_rate) <= 1e-4:
        raise ValueError(f"{source}: cut {name!r}: field 'duration' must be that of the recording, from its start")
    if len(cut.supervisions) != 1 or not (cut.supervisions[0].text or "").strip():
        raise ValueError(f"{source}: cut {name!r}: field 'text' must be the words spoken")
    return cut
