"""Keyed randomness: the random draws of an utterance do not depend on its batch, its rank, the order or a resume."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from robust_asr.masking import masked


class Key(IntEnum):
    """Numbers for the ``step`` or ``draw`` of random draws that belong to no iteration, for ``derive`` and ``utterance_seeds``.

    An attack numbers its iterations and draws from zero; restart r adds r * ``RESTART`` to the number of an iteration. Every
    other use of random draws has a number here, beyond the iterations of the attack, so that no two uses share their draws.
    """

    RESTART = 2**20
    SECOND_STAGE = 2**31
    VERDICT = 2**40
    TARGET = 2**41
    VERDICT_ON_SAVED_AUDIO = 2**42
    RADIUS = 2**43
    CLEAN_OR_ATTACKED = 2**44
    OFFLINE_NORM = 2**45
    OFFLINE_RADIUS = 2**46
    OFFLINE_ITERATIONS = 2**47
    ANOTHER_SEED = 2**48
    RANDOM_START = 2**50
    COMPARISON = 2**51
    LOOK_AT_SUCCESS = 2**52
    CLEAN_LABELS = 2**53
    QUERIES = 2**54
    BREAKING = 2**55
    VOTE = 2**56


def _hash63(*key: int | str) -> int:
    # The length of each part is hashed too, so that ("a", "bc") and ("ab", "c") have different hashes.
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        encoded = str(part).encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def utterance_seeds(seed: int, ids: Sequence[str], *, step: int = 0, draw: int = 0) -> Tensor:
    """One seed for each utterance: a hash of (seed, id, step, draw).

    Shape: B ids -> (B,) int64, on the CPU, because the host reads a seed to start a generator.
    """
    return torch.tensor([_hash63(seed, utterance, step, draw) for utterance in ids], dtype=torch.int64)


def derive(seeds: Tensor, *, step: int = 0, draw: int = 0) -> Tensor:
    """Derive new seeds from given seeds, for one step or draw of a function that was given those seeds.

    Shape: (B,) int64 -> (B,) int64.
    """
    return torch.tensor([_hash63(seed, step, draw) for seed in seeds.tolist()], dtype=torch.int64)


def fresh_seeds(num: int) -> Tensor:
    """New seeds for a call without seeds, from torch's global generator on the CPU. Shape: (num,) int64."""
    return torch.randint(2**63 - 1, (num,))


def _draw(seeds: Tensor, lengths: Tensor, size: int, device: torch.device | str | None, fill: str) -> Tensor:
    device = torch.device(device) if device is not None else lengths.device
    drawn = torch.zeros(len(seeds), size, device=device)
    generator = torch.Generator(device=device)
    for row, (seed, length) in enumerate(zip(seeds.tolist(), lengths.tolist(), strict=True)):
        getattr(drawn[row, :length], fill)(generator=generator.manual_seed(seed))
    return drawn


def keyed_normal(seeds: Tensor, lengths: Tensor, size: int, *, device: torch.device | str | None = None) -> Tensor:
    """Standard normal noise, with a generator for each utterance; zero past ``lengths``.

    Shape: seeds (B,), lengths (B,) -> (B, size) float32.
    """
    return _draw(seeds, lengths, size, device, "normal_")


def keyed_uniform_noise(
    seeds: Tensor, lengths: Tensor, size: int, *, device: torch.device | str | None = None
) -> Tensor:
    """Noise from U(-1, 1), with a generator for each utterance; zero past ``lengths``.

    Shape: seeds (B,), lengths (B,) -> (B, size) float32.
    """
    return masked(2 * _draw(seeds, lengths, size, device, "uniform_") - 1, lengths)


def keyed_choices(
    seeds: Tensor, lengths: Tensor, size: int, *, probability: float, device: torch.device | str | None = None
) -> Tensor:
    """True with a probability, at each position for itself, with a generator for each utterance; True past ``lengths``.

    Shape: seeds (B,), lengths (B,) -> (B, size) bool.
    """
    return _draw(seeds, lengths, size, device, "uniform_") < probability


def keyed_uniform(seeds: Tensor) -> Tensor:
    """A number from U(0, 1) for each utterance. Shape: (B,) -> (B,) float32, on the CPU."""
    return _draw(seeds, torch.ones_like(seeds), 1, "cpu", "uniform_")[:, 0]


def reseed_global(*key: int | str) -> None:
    """Seed the global generators of Python, NumPy and torch by a key such as (seed, rank, epoch, batch).

    For randomness that takes no seeds, which is dropout and SpecAugment.
    """
    seed = _hash63(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that use the global generator are the point
    torch.manual_seed(seed)
