"""Steps of an iterative attack: how far it goes in each iteration, as a share of the radius.

Legend: B utterances, T samples; d a perturbation, r the radius of the ball.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_asr.attacks.progress import Run
from robust_asr.threat import Ball, Region
from robust_asr.threat.norms import steepest

# Of ``Halving``: the share of a movement that is the new step, and of the iterations that must have raised the value.
_MOMENTUM, _RISING = 0.75, 0.75


class Steps(ABC):
    """A value that moves the perturbations of a ``Run`` by one step. The attack raises the values of its objective.

    Attributes:
        run: the class that holds the state of a run.
    """

    run: ClassVar[type[Run]] = Run

    @property
    @abstractmethod
    def name(self) -> str:
        """The steps in an attack's name: ``cosine``; "" for constant steps, as in the papers."""

    @abstractmethod
    def advance(
        self, run: Run, values: Tensor, gradient: Tensor, region: Region, threat: Ball, iteration: int, total: int
    ) -> None:
        """Change ``run.delta`` by a step, given value and gradient at it. Shape: values (B,), gradient (B, T).

        Only the utterances that are ``intact`` move.
        """


@dataclass(frozen=True)
class Constant(Steps):
    """d <- P(d + factor * r * direction), in every iteration alike.

    Attributes:
        factor: the step divided by the radius; by default the threat model's, 1/5 for ``Linf``, 1/10 for ``L2`` and ``SNR``.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        _require_factor(self.factor)

    @property
    def name(self) -> str:
        return ""

    def advance(
        self, run: Run, values: Tensor, gradient: Tensor, region: Region, threat: Ball, iteration: int, total: int
    ) -> None:
        _step(run, gradient, region, threat.default_step_factor if self.factor is None else self.factor)


@dataclass(frozen=True)
class Cosine(Steps):
    """Steps that fall from ``first`` times the radius to zero along half a period of a cosine."""

    first: float = 0.4

    def __post_init__(self) -> None:
        _require_factor(self.first)

    @property
    def name(self) -> str:
        return "cosine"

    def advance(
        self, run: Run, values: Tensor, gradient: Tensor, region: Region, threat: Ball, iteration: int, total: int
    ) -> None:
        _step(run, gradient, region, self.first * (1 + math.cos(math.pi * iteration / total)) / 2)


@dataclass
class HalvingRun(Run):
    """The state of a run with ``Halving`` steps.

    Shape: previous, summit_delta and summit_gradient (B, T), the others (B,).

    Attributes:
        previous: the perturbation of the iteration before, for the momentum.
        factors: the present step divided by the radius.
        last: the value of the iteration before.
        summit, summit_delta, summit_gradient: the highest value so far, where it was, and the gradient there.
        rises: the iterations since the last checkpoint in which the value rose.
        summit_before, factors_before: highest value and step at the last checkpoint.
    """

    previous: Tensor
    factors: Tensor
    last: Tensor
    summit: Tensor
    summit_delta: Tensor
    summit_gradient: Tensor
    rises: Tensor
    summit_before: Tensor
    factors_before: Tensor

    @classmethod
    def at(cls, delta: Tensor) -> HalvingRun:
        lowest = delta.new_full((len(delta),), -torch.inf)
        factors, nothing = torch.full_like(lowest, torch.nan), torch.zeros_like(lowest)
        zero = torch.zeros_like(delta)
        return cls(
            **vars(Run.at(delta)),
            previous=delta.clone(),
            factors=factors,
            last=lowest,
            summit=lowest.clone(),
            summit_delta=delta.clone(),
            summit_gradient=zero,
            rises=nothing,
            summit_before=lowest.clone(),
            factors_before=nothing.clone(),
        )


@dataclass(frozen=True)
class Halving(Steps):
    """Auto-PGD's steps: momentum, and a step that is halved where it no longer pays (Croce & Hein 2020, algorithm 1).

    At checkpoints, whose distances shrink from 22 % of the iterations to 6 %, the step of an utterance is halved and the utterance
    goes back to its best perturbation, if its value rose in fewer than three quarters of the iterations since the last
    checkpoint, or if neither its step nor its highest value has changed since then. Three quarters of a movement are the new
    step, one repeats the last movement.

    Attributes:
        first: the first step divided by the radius; 2 crosses the ball.
    """

    first: float = 2.0

    run: ClassVar[type[Run]] = HalvingRun

    def __post_init__(self) -> None:
        _require_factor(self.first)

    @property
    def name(self) -> str:
        return "halving"

    def advance(
        self,
        run: HalvingRun,
        values: Tensor,
        gradient: Tensor,
        region: Region,
        threat: Ball,
        iteration: int,
        total: int,
    ) -> None:
        if iteration == 0:
            run.factors = torch.full_like(run.factors, self.first)
        run.rises += values > run.last
        run.last = values
        higher = values > run.summit
        run.summit = torch.where(higher, values, run.summit)
        run.summit_delta = torch.where(higher[:, None], run.delta, run.summit_delta)
        run.summit_gradient = torch.where(higher[:, None], gradient, run.summit_gradient)
        checkpoints = _checkpoints(total)
        if iteration in checkpoints:
            gradient = self._look_back(run, gradient, iteration - checkpoints[checkpoints.index(iteration) - 1])
        before = run.delta.clone()
        _step(run, gradient, region, run.factors)
        if iteration > 0:
            moved = before + _MOMENTUM * (run.delta - before) + (1 - _MOMENTUM) * (before - run.previous)
            run.delta = region.project_(torch.where(run.intact[:, None], moved, before))
        run.previous = before

    def _look_back(self, run: HalvingRun, gradient: Tensor, distance: int) -> Tensor:
        stuck = (run.factors == run.factors_before) & (run.summit == run.summit_before)
        halved = stuck | (run.rises < _RISING * distance)
        run.factors_before, run.summit_before = run.factors.clone(), run.summit.clone()
        run.factors = torch.where(halved, run.factors / 2, run.factors)
        run.rises = torch.zeros_like(run.rises)
        run.delta = torch.where(halved[:, None], run.summit_delta, run.delta)
        run.last = torch.where(halved, run.summit, run.last)
        return torch.where(halved[:, None], run.summit_gradient, gradient)


def _checkpoints(total: int) -> list[int]:
    """The iterations at which steps may be halved, after 0 (Croce & Hein 2020, section 3.2)."""
    # In hundredths, because sums of binary fractions are above .57 and .99.
    shares = [0, 22]
    while shares[-1] < 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    return sorted({-(-share * total // 100) for share in shares if share < 100})


def _step(run: Run, gradient: Tensor, region: Region, factor: float | Tensor) -> None:
    direction, peak = steepest(gradient, norm=region.norm)
    # These flags stay on the device: reading them on the host in every iteration would make the device wait.
    run.intact &= peak.isfinite()
    run.moved |= run.intact & (peak > 0)
    run.iterations += run.intact
    step = factor * region.radius * run.intact
    run.delta = region.project_(run.delta.addcmul(direction.nan_to_num_(0, 0, 0), step[:, None]))


def _require_factor(factor: float | None) -> None:
    if factor is not None and not 0 < factor <= 2:
        raise ValueError(f"a step must lie in (0, 2] times the radius, found {factor}: 2 crosses the ball")
