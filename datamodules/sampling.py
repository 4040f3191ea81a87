"""Which utterances make a batch of training: buckets of similar duration, drawn anew in every epoch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from lhotse import CutSet
from lhotse.cut import MonoCut
from lhotse.dataset.sampling.base import TimeConstraint
from lhotse.dataset.sampling.dynamic_bucketing import DynamicBucketer
from torch.utils.data import Sampler

from datamodules.training_set import TrainingSet


class Resumable:
    """The order of training data as a function of the epoch, entered in the middle of an epoch where a checkpoint says so."""

    epoch = 0
    _resume = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def resume_at(self, *, epoch: int, num_batches: int) -> None:
        """That epoch begins after ``num_batches`` of this rank; those before it are gone through without decoding audio."""
        self.epoch = epoch
        self._resume = (epoch, num_batches)

    @property
    def num_done(self) -> int:
        """Batches of the present epoch that were trained on before the resume."""
        epoch, num_batches = self._resume
        return num_batches if epoch == self.epoch else 0


@dataclass(frozen=True)
class Length:
    """An utterance as the sampler sees it: to count the batches of an epoch, no other field of a cut is needed."""

    id: str
    duration: float


@dataclass
class Cost(TimeConstraint):
    """A batch is full at ``max_duration`` seconds of padded audio, where an utterance counts for at least ``window_seconds``."""

    window_seconds: float = 0.0

    def add(self, example: MonoCut | Length) -> None:
        seconds = max(example.duration, self.window_seconds)
        self.current += seconds
        self.longest_seen = max(self.longest_seen, seconds)
        self.num_cuts += 1


class TrainingSampler(Resumable, Sampler):
    """Batches of lhotse's dynamic buckets: an epoch brings every utterance to one rank, and as many batches to each.

    lhotse's own sampler duplicates utterances when fewer are left than there are ranks, and visits the buckets in the
    same order in every epoch. Here those few join the last full round, and both the order and the bounds of the
    buckets change from epoch to epoch, so that in a small corpus an utterance does not keep its neighbours.

    Args:
        cuts: can be iterated again; ``durations`` holds the seconds of each, in that order: the bounds of the buckets, and the
            number of batches, follow from them.
        max_duration: seconds of audio a batch.
        window_seconds: an utterance counts for at least so much, see ``robust_asr.models.base.Recognizer.window``.
        buffer_size: cuts in memory at a time, from which batches are drawn.
    """

    def __init__(
        self,
        cuts: TrainingSet,
        *,
        max_duration: float,
        num_buckets: int,
        seed: int,
        window_seconds: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        buffer_size: int = 20_000,
    ) -> None:
        self.cuts = cuts
        self.max_duration, self.num_buckets, self.buffer_size = max_duration, num_buckets, buffer_size
        self.window_seconds = window_seconds
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._left_out: tuple[int, frozenset[str]] = (0, frozenset())

    def leave_out(self, ids: frozenset[str], *, epoch: int) -> None:
        """That epoch brings these utterances to no rank: batches made otherwise have brought them already."""
        self._left_out = (epoch, ids)

    def ids_of(self, *, epoch: int, num_batches: int) -> frozenset[str]:
        """The utterances in the first batches of an epoch, those of all ranks; no audio is decoded."""
        rounds = islice(self._rounds(self._bucketed(epoch, self._cuts_left(epoch))), num_batches)
        return frozenset(cut.id for batches in rounds for batch in batches for cut in batch)

    def __iter__(self) -> Iterator[CutSet]:
        for index, batches in enumerate(self._rounds(self._bucketed(self.epoch, self._cuts_left(self.epoch)))):
            if index >= self.num_done:
                yield batches[self.rank]

    def _cuts_left(self, epoch: int) -> Iterable[MonoCut]:
        of_epoch, ids = self._left_out
        cuts = self._cuts(epoch)
        return (cut for cut in cuts if cut.id not in ids) if of_epoch == epoch and ids else cuts

    def num_batches(self, epoch: int) -> int:
        """How many batches an epoch brings to every rank, by a run over the durations.

        No ``__len__``: Lightning would ask it once, and cut off what a later epoch brings more.
        """
        lengths = (Length(str(index), seconds) for index, seconds in enumerate(self._durations(epoch)))
        return sum(1 for _ in self._rounds(self._bucketed(epoch, lengths)))

    def _cuts(self, epoch: int) -> Iterable[MonoCut]:
        return self.cuts

    def _durations(self, epoch: int) -> Iterable[float]:
        return self.cuts.durations.tolist()

    def _bucketed(self, epoch: int, cuts: Iterable[MonoCut | Length]) -> Iterable[CutSet]:
        shift = random.Random(f"shift-{self.seed}-{epoch}").random()
        return DynamicBucketer(
            ((cut,) for cut in cuts),
            duration_bins=duration_bins(self.cuts.durations, num_buckets=self.num_buckets, shift=shift),
            world_size=self.world_size,
            constraint=Cost(max_duration=self.max_duration, window_seconds=self.window_seconds),
            buffer_size=self.buffer_size,
            shuffle=True,
            rng=random.Random(f"cuts-{self.seed}-{epoch}"),
            # Without a generator of its own lhotse 1.33 ends the epoch when it first draws an empty bucket.
            bucket_rng=random.Random(f"buckets-{self.seed}-{epoch}"),
        )

    def _rounds(self, batches: Iterable[CutSet]) -> Iterator[list[CutSet]]:
        """A round is one batch for every rank; the last round takes the utterances that fill no round."""
        held: list[CutSet] = []
        current: list[CutSet] = []
        for batch in batches:
            current.append(batch)
            if len(current) == self.world_size:
                if held:
                    yield held
                held, current = current, []
        left = sorted((cut for batch in current for cut in batch), key=lambda cut: (cut.duration, cut.id))
        if len(left) >= self.world_size:
            if held:
                yield held
            yield [CutSet.from_cuts(left[rank :: self.world_size]) for rank in range(self.world_size)]
        elif held:
            yield [CutSet.from_cuts([*batch, *left[rank : rank + 1]]) for rank, batch in enumerate(held)]
        elif left:
            raise ValueError(f"{len(left)} training utterances cannot be shared by {self.world_size} processes")


def duration_bins(durations: np.ndarray, *, num_buckets: int, shift: float = 0.5) -> list[float]:
    """Bounds between at most ``num_buckets`` buckets that hold about equal amounts of audio.

    Args:
        shift: in [0, 1), moves all bounds by this share of a bucket.

    Units: seconds.
    """
    ordered = np.sort(durations)
    shares = np.cumsum(ordered) / ordered.sum()
    num_bounds = max(1, min(num_buckets, len(ordered)) - 1)
    places = np.searchsorted(shares, (np.arange(num_bounds) + shift) / num_bounds)
    return sorted({float(bound) for bound in ordered[places]})


def expected_padding(
    durations: np.ndarray, *, num_buckets: int, max_duration: float, window_seconds: float = 0.0
) -> tuple[float, int]:
    """About the share of padding in the batches of an epoch, and about their number: quicker than to make them."""
    bounds = duration_bins(durations, num_buckets=num_buckets)
    buckets = np.searchsorted(bounds, durations, side="right")
    padded, num_batches = 0.0, 0
    for bucket in range(len(bounds) + 1):
        inside = np.random.default_rng(0).permutation(durations[buckets == bucket])
        start = 0
        while start < len(inside):
            batch = inside[start : start + 1 + int(max_duration / inside[start:].min())]
            longest = np.maximum.accumulate(batch)
            costs = np.maximum(batch, window_seconds)
            full = np.flatnonzero(np.cumsum(costs) + np.maximum(longest, window_seconds) > max_duration)
            size = int(full[0]) + 1 if len(full) else len(batch)
            padded += size * float(longest[size - 1])
            num_batches += 1
            start += size
    return 1 - float(durations.sum()) / padded, num_batches
