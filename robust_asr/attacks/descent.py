"""Adam on the perturbation of each utterance, with regular checks of the transcript: the loop of CW and imperceptible attacks.

Legend: B utterances still attacked, T samples; x a waveform, d its perturbation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload, select_state, status_of
from robust_asr.attacks.expectation import room_of
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.hearing import Hearing
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import ThreatModel
from robust_asr.threat.norms import maximum, project_linf
from robust_asr.types import Status

_MEAN, _SQUARE, _EPSILON = 0.9, 0.999, 1e-8
_State = TypeVar("_State", bound="State")


class Settings(Protocol):
    """The fields of an attack that a descent reads."""

    goal: Goal
    threat: ThreatModel
    check_every: int
    num_draws: int
    success_draws: int
    success_fraction: float
    max_samples: int | None


@dataclass
class State:
    """The present state of each utterance. Shape: delta, best, gradient and Adam's moments (B, T); the others (B,).

    Attributes:
        best: the perturbation that the descent would return if it ended now.
        gradient: the gradient of the minimised loss at ``delta``.
        intact: False once a gradient was not finite; from then on the perturbation stays unchanged.
        moved: whether any gradient so far was not zero.
    """

    delta: Tensor
    best: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    intact: Tensor
    moved: Tensor
    iterations: Tensor
    forwards: Tensor

    @classmethod
    def at(cls: type[_State], delta: Tensor, **more: Tensor) -> _State:
        gradient, mean, square = torch.zeros_like(delta)[None].repeat(3, 1, 1)
        iterations, forwards = delta.new_zeros(2, len(delta), dtype=torch.long)
        intact = delta.new_ones(len(delta), dtype=torch.bool)
        return cls(delta, delta, gradient, mean, square, intact, ~intact, iterations, forwards, **more)

    def status(self) -> tuple[Status, ...]:
        return status_of(self.intact, self.moved)


class Descent(ABC):
    """One run of Adam. A subclass defines the gradients, which perturbation is best, and which utterances are finished.

    The pass that computes the gradient for update k + 1 also decides the success of the perturbation after k updates, so a
    success always belongs to exactly the perturbation that was transcribed. The perturbation after the last update gets an
    extra pass.
    """

    num_iterations: int
    # The random draws of iteration k have the key first_step + k.
    first_step: int = 0

    def __init__(self, settings: Settings, recognizer: Recognizer, work: Workload, state: State) -> None:
        self.settings = settings
        self.recognizer = recognizer
        self.state = state
        self._whole = replace(state, **{field.name: getattr(state, field.name).clone() for field in fields(state)})
        self._rows = torch.arange(len(work))
        self._num_updates = 0
        self._room = settings.max_samples or room_of(recognizer, work.batch)
        self._attend(work)

    @abstractmethod
    def gradients(self) -> Sequence[Tensor]:
        """The gradients at the present perturbation; Adam makes one update for each. Shape: (B, T) each."""

    @abstractmethod
    def learning_rate(self, iteration: int) -> float | Tensor:
        """The learning rate of Adam in an iteration. Shape: () or (B, 1)."""

    @abstractmethod
    def bound(self) -> Tensor:
        """The bound on the largest sample of each perturbation. Shape: (B,)."""

    @abstractmethod
    def observe(self, losses: Tensor, reached: Tensor | None, iteration: int) -> None:
        """Judge the present perturbation, after ``iteration`` updates.

        Shape: losses to minimise (B,); reached (B,) bool, whether the goal is reached, or None if this iteration did not check.
        """

    @abstractmethod
    def done(self) -> Tensor:
        """Which utterances need no further update. Shape: (B,) bool."""

    def select(self, rows: Tensor) -> None:  # noqa: B027 - most hold nothing else
        """Reduce tensors that a subclass holds beside its ``state`` to the utterances at ``rows``. Shape: (num,)."""

    def run(self, partial: Partial = NOWHERE) -> State:
        """Run to the end and return the state of every utterance. Starts from the state that a killed run saved in ``partial``."""
        saved = partial.load()
        first = 0 if saved is None else self._take_up(saved)
        for iteration in range(first, self.num_iterations + 1):
            last = iteration == self.num_iterations
            check = last or iteration % self.settings.check_every == 0
            if len(self.work):
                self._look(iteration, check=check, last=last)
            if check:
                self._release()
            if last or not len(self.work):
                break
            self._update(iteration)
            partial.keep(lambda reached=iteration + 1: self._kept(reached))
        self._store()
        return self._whole

    def _kept(self, iteration: int) -> dict[str, Any]:
        """The complete state from which ``iteration`` can begin."""
        self._store()
        tensors = {field.name: getattr(self._whole, field.name) for field in fields(self._whole)}
        counts = {"stage": int(self.first_step), "iteration": iteration, "num_updates": self._num_updates}
        return {**counts, "rows": self._rows, **tensors}

    def _take_up(self, saved: dict[str, Any]) -> int:
        """Restore a state that ``_kept`` returned. Returns the iteration to begin with."""
        device = self.state.delta.device
        tensors = {field.name: saved[field.name].to(device) for field in fields(self._whole)}
        self._whole = replace(self._whole, **tensors)
        self._num_updates = saved["num_updates"]
        self._keep_only(saved["rows"])
        return saved["iteration"]

    def _keep_only(self, rows: Tensor) -> None:
        """Reduce the working batch to its utterances at ``rows``; their state comes from ``_whole``. Shape: (num,)."""
        work = self.work.select(rows)
        self._rows = self._rows[rows]
        self.state = select_state(self._whole, self._rows, work.batch.waveforms.shape[1])
        self.select(rows)
        self._attend(work)

    def _attend(self, work: Workload) -> None:
        self.work = work
        if len(work):
            self._hearing = Hearing(
                self.recognizer,
                work,
                num_draws=self.settings.num_draws,
                success_draws=self.settings.success_draws,
                max_samples=self._room,
            )

    def _look(self, iteration: int, *, check: bool, last: bool) -> None:
        state, goal, step = self.state, self.settings.goal, self.first_step + iteration
        look = self._hearing.look(
            self.work.batch.waveforms + state.delta, goal, step=step, gradient=not last, check=check
        )
        if look.gradient is not None:
            # These flags stay on the device: reading them on the host in every iteration would make the device wait.
            peak = maximum(look.gradient)
            state.intact &= peak.isfinite()
            state.moved |= state.intact & (peak > 0)
            state.gradient = -goal.sign * look.gradient.nan_to_num(0, 0, 0)
        state.forwards += self._hearing.forwards
        reached = None
        if look.hits is not None:
            reached = (look.hits >= self.settings.success_fraction - 1e-9).to(state.delta.device, non_blocking=True)
            state.forwards += self._hearing.check_forwards
        self.observe(-goal.sign * look.losses, reached, iteration)

    def _update(self, iteration: int) -> None:
        state, delta = self.state, self.state.delta
        for gradient in self.gradients():
            self._num_updates += 1
            update = adam_update(state.mean, state.square, gradient, count=self._num_updates)
            delta = delta - self.learning_rate(iteration) * update
        delta = self.settings.threat.project(project_linf(delta, self.bound()), self.work.batch)
        state.delta = torch.where(state.intact[:, None], delta, state.delta)
        state.iterations += state.intact

    def _release(self) -> None:
        """Remove finished utterances from the working batch."""
        done = (self.done() | ~self.state.intact).cpu()
        if bool(done.any()):
            self._store()
            self._keep_only((~done).nonzero()[:, 0])

    def _store(self) -> None:
        rows = self._rows.to(self.state.delta.device)
        for field in fields(self.state):
            value, whole = getattr(self.state, field.name), getattr(self._whole, field.name)
            if value.dim() > 1:
                whole = whole[:, : value.shape[1]]
            whole[rows] = value


def adam_update(mean: Tensor, square: Tensor, gradient: Tensor, *, count: int) -> Tensor:
    """Adam (Kingma and Ba 2015) of one tensor at a learning rate of 1; the moments are updated in place.

    ``torch.optim.Adam`` keeps its moments by parameter, so it cannot drop the moments of a single utterance of the batch.

    Shape: (B, T) each. ``count``: the number of updates, including the present one.
    """
    mean.lerp_(gradient, 1 - _MEAN)
    square.mul_(_SQUARE).addcmul_(gradient, gradient, value=1 - _SQUARE)
    return mean / (1 - _MEAN**count) / ((square / (1 - _SQUARE**count)).sqrt() + _EPSILON)
