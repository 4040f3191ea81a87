"""The bookkeeping of a search over budgets: between which two budgets each utterance breaks, and the audio that shows it.

Legend: B utterances, T samples, K budgets from the smallest to the largest, n utterances that are tried together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robust_asr.attacks.base import Perturbation
from robust_asr.types import AudioBatch, Broken, Status


class Bracket:
    """The bisection of every utterance of a batch.

    Shape: held and broken (B, T) on the device of the batch; the other tensors (B,) int64, on the CPU.

    Attributes:
        turn: the number of turns that are over; the state is saved after each.
        low: the number of the largest budget that was tried and failed, -1 where none was.
        high: the number of the smallest budget that succeeded: K where none did, -1 where the audio itself is broken.
        held, broken: the attacked audio at these two budgets; the audio itself where there is none.
        tries: the budgets tried.
        member, status: of an ensemble, the name of the attack behind the result; the status of the last attack.
    """

    def __init__(self, batch: AudioBatch, num_budgets: int) -> None:
        self.batch, self.num_budgets, self.turn = batch, num_budgets, 0
        self.held, self.broken = batch.waveforms.clone(), batch.waveforms.clone()
        self.low, self.high = torch.full((2, len(batch)), -1)
        self.high += num_budgets + 1
        self.tries, self.iterations, self.forwards = torch.zeros(3, len(batch), dtype=torch.long)
        self.member, self.status = [""] * len(batch), [Status.ATTACKED] * len(batch)

    def take_up(self, saved: dict[str, Any] | None) -> None:
        """Go on from the state that a killed run saved."""
        if saved is not None:
            for name, value in saved.items():
                setattr(self, name, value.to(getattr(self, name).device) if isinstance(value, Tensor) else value)
            self.status = list(map(Status, self.status))

    def state(self) -> dict[str, Any]:
        names = ("turn", "low", "high", "held", "broken", "tries", "iterations", "forwards", "member")
        return {name: getattr(self, name) for name in names} | {"status": [str(given) for given in self.status]}

    def undecided(self) -> Tensor:
        """The utterances that have a budget between the two. Shape: (n,)."""
        return (self.high - self.low > 1).nonzero()[:, 0]

    def middle(self, rows: Tensor) -> Tensor:
        """The number of the budget that is tried next. Shape: (n,)."""
        return (self.low[rows] + self.high[rows]) // 2

    def neighbours(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Which of ``rows`` have attacked audio at the next smaller and at the next larger budget, and that audio.

        Shape: twice (n,) bool and (n, T).
        """
        known = (self.low[rows] >= 0, self.high[rows] < self.num_budgets)
        return [
            (there, audio[rows.to(audio.device)]) for there, audio in zip(known, (self.held, self.broken), strict=True)
        ]

    def unperturbed(self, reached: Tensor) -> None:
        """Whether each utterance needs no perturbation at all. Shape: (B,) bool."""
        self.high[reached] = -1

    def enter(self, rows: Tensor, waveforms: Tensor, reached: Tensor) -> None:
        """The audio that was found at the budgets ``middle(rows)``. Shape: rows (n,), waveforms (n, t), reached (n,) bool."""
        tried, size = self.middle(rows), waveforms.shape[1]
        for audio, level, chosen in ((self.broken, self.high, reached), (self.held, self.low, ~reached)):
            audio[rows[chosen].to(audio.device), :size] = waveforms[chosen.to(waveforms.device)]
            level[rows[chosen]] = tried[chosen]
        self.tries[rows] += 1

    def account(self, rows: Tensor, made: Perturbation) -> None:
        """The work of an attack, and what it says of the utterances at ``rows`` (n,)."""
        self.iterations[rows] += made.iterations.cpu()
        self.forwards[rows] += made.forwards.cpu()
        for place, row in enumerate(rows.tolist()):
            self.status[row] = made.status[place] if made.status else Status.ATTACKED
            self.member[row] = made.members[place] if made.members else ""

    def outcomes(self) -> list[Broken]:
        return [self._outcome(high) for high in self.high.tolist()]

    def budgets(self) -> Tensor:
        """The number of the budget that stands for each utterance: that where it breaks, or the end of the range. Shape: (B,)."""
        return self.high.clamp(0, self.num_budgets - 1)

    def perturbation(self, facts: Sequence[dict[str, Any]]) -> Perturbation:
        """The audio that broke each utterance; the largest perturbation that did not, where none did."""
        whole = (self.high == self.num_budgets).to(self.held.device)
        waveforms = torch.where(whole[:, None], self.held, self.broken)
        # An ensemble names a member for each utterance; one that was broken as it was has none.
        members = tuple(self.member) if any(self.member) else ()
        return Perturbation(waveforms, self.iterations, self.forwards, tuple(self.status), members, tuple(facts))

    def _outcome(self, high: int) -> Broken:
        if high == self.num_budgets:
            return Broken.BEYOND
        return Broken.UNPERTURBED if high < 0 else Broken.SMALLEST if high == 0 else Broken.WITHIN
