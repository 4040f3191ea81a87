"""The few collectives that training calls itself; without a process group they are the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(*values: Tensor) -> list[float]:
    """Each scalar summed over all ranks, in one collective of float64."""
    stacked = torch.stack([value.detach().double() for value in values])
    if is_distributed():
        dist.all_reduce(stacked)
    return stacked.tolist()


def wait_for_ranks() -> None:
    """Return when every rank is here."""
    if is_distributed():
        dist.barrier()


def gather_text(texts: list[str]) -> list[str]:
    """The texts of all ranks. Every rank must call it."""
    if not is_distributed():
        return texts
    gathered: list[list[str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, texts)
    return [text for part in gathered for text in part or []]
