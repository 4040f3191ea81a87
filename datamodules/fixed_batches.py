"""Which utterances make a batch of evaluation: one list of batches, whatever the epoch and the number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from lhotse.cut import MonoCut
from torch.utils.data import Sampler

Batching = Literal["similar", "equal", "alone"]
# The largest share of padding in a batch of evaluation. An attack loses less by a tenth of silence than by smaller batches.
MAX_PADDING = 0.1


class FixedBatches(Sampler):
    """One list of batches, the same for every number of ranks, of which each rank takes as much as the others.

    Utterances are sorted by length, so that none is there twice or missing and neighbours are similar. The longest batch goes
    first, and each to the rank that has least so far: an attack takes minutes a batch, and the last rank decides when all are done.
    Ranks that would have one batch fewer than others end with an empty one: under DDP every evaluation step is a
    collective, and none may be alone.

    Args:
        max_duration: seconds a batch, padding included; one utterance may be longer.
        batching: ``similar`` bounds the padding of a batch by ``MAX_PADDING``, ``equal`` lets only equal lengths together,
            ``alone`` makes batches of one.
        window_seconds: an utterance counts for at least so much, and what fills it up to there is no padding of a batch.
    """

    def __init__(
        self,
        cuts: Iterable[MonoCut],
        *,
        max_duration: float,
        batching: Batching = "similar",
        window_seconds: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
        self.batches: list[list[MonoCut]] = []
        self.window_seconds = window_seconds
        seconds = 0.0
        for cut in ordered:
            batch = self.batches[-1] if self.batches else []
            cost = max(cut.duration, window_seconds)
            size = (len(batch) + 1) * cost
            similar = {
                "similar": size - seconds - cost <= MAX_PADDING * size,
                "equal": bool(batch) and batch[0].duration == cut.duration,
                "alone": False,
            }[batching]
            if batch and similar and size <= max_duration:
                batch.append(cut)
                seconds += cost
            else:
                self.batches.append([cut])
                seconds = cost
        # A stable sort: batches of equal cost keep their order.
        self.batches.sort(key=self._cost, reverse=True)
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[MonoCut]]:
        dealt: list[list[list[MonoCut]]] = [[] for _ in range(self.world_size)]
        loads = [0.0] * self.world_size
        for batch in self.batches:
            rank = min((rank for rank in range(self.world_size) if len(dealt[rank]) < len(self)), key=loads.__getitem__)
            dealt[rank].append(batch)
            loads[rank] += self._cost(batch)
        own = dealt[self.rank]
        return iter(own + [[]] * (len(self) - len(own)))

    def __len__(self) -> int:
        return -(-len(self.batches) // self.world_size)

    def _cost(self, batch: list[MonoCut]) -> float:
        return len(batch) * max(self.window_seconds, *(cut.duration for cut in batch))
