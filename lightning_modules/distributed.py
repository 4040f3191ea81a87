"""The few collectives that training calls itself; without a process group they are the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from datamodules.ranks import rank_and_world_size


def sum_over_ranks(*values: Tensor) -> list[float]:
    """Each scalar summed over all ranks, in one collective of float64."""
    stacked = torch.stack([value.detach().double() for value in values])
    if _num_ranks() > 1:
        dist.all_reduce(stacked)
    return stacked.tolist()


def wait_for_ranks() -> None:
    """Return when every rank is here."""
    if _num_ranks() > 1:
        dist.barrier()


def gather_text(texts: list[str]) -> list[str]:
    """The texts of all ranks. Every rank must call it."""
    if _num_ranks() == 1:
        return texts
    gathered: list[list[str] | None] = [None] * _num_ranks()
    dist.all_gather_object(gathered, texts)
    return [text for part in gathered for text in part or []]


def _num_ranks() -> int:
    return rank_and_world_size()[1]
