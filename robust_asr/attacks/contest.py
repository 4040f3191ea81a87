"""The bookkeeping of an ensemble of attacks: each utterance's worst perturbation, who found it, and what it has cost.

Legend: B utterances, T samples, M members, n utterances that one attack worked on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robust_asr.attacks.base import Perturbation
from robust_asr.attacks.compaction import status_of
from robust_asr.attacks.progress import Outcome
from robust_asr.types import AudioBatch


class Contest:
    """The state of an ensemble on one batch.

    Shape: delta (B, T) on the device of the batch; damages (B, M) and the other tensors (B,), on the CPU.

    Attributes:
        turn: the number of turns that are over; the state is saved after each.
        damage: the damage of ``delta`` to the transcript, on the draws of comparisons; -inf before the first attack.
        lost: the damage from which an utterance needs no further attack.
        damages: the damage of each member alone.
        winners: the number of the member whose perturbation ``delta`` is, -1 for the start that the ensemble was given.
    """

    def __init__(self, batch: AudioBatch, lost: Tensor, num_members: int) -> None:
        self.batch, self.lost, self.turn = batch, lost, 0
        self.delta = torch.zeros_like(batch.waveforms)
        self.damage = torch.full((len(batch),), -torch.inf, dtype=torch.float64)
        self.damages = torch.full((len(batch), num_members), -torch.inf, dtype=torch.float64)
        self.winners, self.iterations, self.forwards = torch.zeros(3, len(batch), dtype=torch.long)
        self.intact, self.moved = torch.zeros(2, len(batch), dtype=torch.bool)

    def take_up(self, saved: dict[str, Any] | None) -> None:
        """Go on from the state that a killed run saved."""
        if saved is not None:
            for name, value in saved.items():
                setattr(self, name, value.to(getattr(self, name).device) if isinstance(value, Tensor) else value)

    def state(self) -> dict[str, Any]:
        names = ("turn", "delta", "damage", "damages", "winners", "iterations", "forwards", "intact", "moved")
        return {name: getattr(self, name) for name in names}

    def remaining(self) -> Tensor:
        """The utterances that are not lost yet. Shape: (n,)."""
        return (self.damage < self.lost).nonzero()[:, 0]

    def begin(self, found: Outcome) -> None:
        """Perturbations that were there before the first member, as long as nothing better is found."""
        self.delta, self.damage = found.state.delta, found.damage.cpu()
        self.winners -= 1
        self.forwards += found.state.forwards.cpu()
        self.intact |= True
        # An utterance that is lost already is not attacked: no gradient of it was masked.
        self.moved |= self.damage >= self.lost

    def enter(self, member: int, rows: Tensor, outcome: Outcome) -> None:
        """The result of a member on the utterances at ``rows``; of two equal results the earlier one stays. Shape: rows (n,)."""
        found, damage = outcome.state, outcome.damage.cpu()
        self.damages[rows, member] = damage
        better = damage > self.damage[rows]
        winning, size = rows[better], found.delta.shape[1]
        self.delta[winning.to(self.delta.device), :size] = found.delta[better.to(found.delta.device)]
        self.damage[winning], self.winners[winning] = damage[better], member
        for name in ("iterations", "forwards"):
            getattr(self, name)[rows] += getattr(found, name).cpu()
        # An attack that broke off, or whose gradient was zero, speaks for the whole only if no other attack went on.
        for name in ("intact", "moved"):
            getattr(self, name)[rows] |= getattr(found, name).cpu()

    def perturbation(self, members: Sequence[str]) -> Perturbation:
        names = tuple(members[number] if number >= 0 else "start" for number in self.winners.tolist())
        status = status_of(self.intact, self.moved)
        return Perturbation(self.batch.waveforms + self.delta, self.iterations, self.forwards, status, names)
