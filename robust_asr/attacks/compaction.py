"""Per-utterance early stopping: finished utterances leave the batch, and the padding shrinks to the longest that remains.

Legend: B utterances still attacked, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from robust_asr.types import AudioBatch, Status, Targets

State = TypeVar("State")


@dataclass(frozen=True)
class Workload:
    """The utterances that an attack still works on.

    ``texts`` are the goal's, as transcripts are compared with them.

    Shape: seeds (B,) and places (B,), on the CPU; a place is the row in the batch that the attack was given.
    """

    batch: AudioBatch
    targets: Targets
    texts: tuple[str, ...]
    seeds: Tensor
    places: Tensor

    @classmethod
    def whole(cls, batch: AudioBatch, targets: Targets, texts: Sequence[str], *, seeds: Tensor) -> Workload:
        return cls(batch, targets, tuple(texts), seeds, torch.arange(len(batch)))

    def __len__(self) -> int:
        return len(self.places)

    def select(self, rows: Tensor) -> Workload:
        """The utterances at ``rows`` (num,), padded to the longest of them."""
        return Workload(
            batch=self.batch.select(rows),
            targets=self.targets.select(rows),
            texts=tuple(self.texts[row] for row in rows.tolist()),
            seeds=self.seeds[rows],
            places=self.places[rows],
        )


def select_state(state: State, rows: Tensor, size: int) -> State:
    """A dataclass of tensors reduced to the given utterances: (B,) and (B, T) tensors lose rows, and T shrinks to ``size``.

    Fields that hold no tensor stay as they are.
    """

    def selected(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        remaining = value[rows.to(value.device)]
        return remaining[:, :size] if remaining.dim() > 1 else remaining

    return replace(state, **{field.name: selected(getattr(state, field.name)) for field in fields(state)})


def status_of(intact: Tensor, moved: Tensor) -> tuple[Status, ...]:
    """The status of each utterance. ``intact``: all its gradients were finite. ``moved``: some gradient was not zero.

    Shape: (B,) bool each.
    """
    flags = zip(intact.tolist(), moved.tolist(), strict=True)
    return tuple(
        Status.BROKEN_OFF if not whole else Status.ATTACKED if any_gradient else Status.MASKED_GRADIENT
        for whole, any_gradient in flags
    )
