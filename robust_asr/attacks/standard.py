"""The standard evaluation: an ensemble of attacks that nobody has to tune, within a budget of passes.

Legend: B utterances, T samples, n utterances still attacked.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.contest import Contest
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.objectives import Objective, strongest
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.progress import Outcome
from robust_asr.attacks.square import Square
from robust_asr.attacks.steps import Cosine, Halving, Steps
from robust_asr.defenses.base import Defended
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball
from robust_asr.types import AudioBatch, Targets

# Raised whenever the numbers that the attack finds may change, so that tables of two versions are never compared in silence.
VERSION = 1
# The share of the budget that the first round may take, and the share of that round for the queries without a gradient: so few
# do little damage, they are an alarm.
_FIRST_ROUND, _QUERIES = 0.7, 0.1
# A member's perturbations are compared this often. With fewer iterations than the least it would be no attack.
_LOOKS, _LEAST, _COMPARISON_DRAWS = 3, 5, 8
# The second round refines what the first has found, so its first step is half as long.
_REFINING = Cosine(0.2)
# Two gradients whose cosine is larger are one.
_SAME = 0.99


@dataclass(frozen=True)
class Standard(Attack):
    """The worst of several attacks for each utterance, within a number of passes: the only setting beside the threat model.

    In the first round every member attacks the clean audio: ``PGD`` with falling steps on each of the ``strongest`` objectives
    (for a target, with falling and with halving steps on its loss), the same through the straight-through form of the defences
    where that has another gradient, and ``Square``, whose success without a gradient would show that the gradients are masked.
    In the second round the member that did the most damage goes on from there, for each utterance.

    The perturbation with the most damage to the transcript is kept, judged on draws that neither an iteration nor the verdict
    uses. An utterance that is lost (as many errors as words; the target reached on all of these draws) is not attacked further,
    and what it leaves of its budget goes to the other utterances of the batch.

    The name holds the version and the budget, and each row of an evaluation names the member that won. AutoAttack (Croce & Hein
    2020) is the same idea for images.

    Attributes:
        forwards: the passes of an utterance, on average over the batch, those that compare perturbations included.

    Errors: ValueError for a budget that is too small for the members.
    """

    threat: Ball
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    forwards: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, Ball):
            raise ValueError(f"threat must be a ball such as Linf, L2 or SNR, found {self.threat}")
        if not 1 <= self.forwards < Key.RESTART:
            raise ValueError(f"forwards must be at least 1 and below {int(Key.RESTART)}, found {self.forwards}")

    @property
    def name(self) -> str:
        return f"standard-{VERSION}{' targeted' if self.goal.targeted else ''} ({self.forwards} forwards)"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        texts = self.goal.texts(batch, seeds=seeds)
        contest = Contest(batch, torch.tensor([self.goal.most_damage(text) for text in texts], dtype=torch.float64))
        members = self._members(recognizer, batch, targets, seeds)
        contest.take_up(partial.load())
        for number, member in enumerate(members):
            rows = contest.remaining()
            if contest.turn == number:
                if len(rows):
                    where = partial.part(str(contest.turn))
                    contest.enter(number, rows, member.search(batch, targets, rows, seeds=seeds, partial=where))
                contest.turn += 1
                partial.keep(contest.state, now=True)
        if contest.turn == len(members):
            self._refine(members, recognizer, contest, targets, seeds, partial)
        return contest.perturbation([member.name for member in members])

    def _refine(
        self,
        members: list[Member],
        recognizer: Recognizer,
        contest: Contest,
        targets: Targets,
        seeds: Tensor,
        partial: Partial,
    ) -> None:
        """The second round: every utterance that is not lost is attacked further by the member that did the most damage to it."""
        rows = contest.remaining()
        spare = (self.forwards * len(contest.batch) - int(contest.forwards.sum())) // max(len(rows), 1)
        # An utterance that nothing breaks gets at most three budgets, so the time of an evaluation stays near to what was asked.
        iterations = _iterations(min(spare, 2 * self.forwards), recognizer)
        if iterations < _LEAST:
            return
        for number, member in enumerate(members):
            mine = rows[contest.winners[rows] == number]
            if len(mine):
                second = member.refined(iterations)
                start = contest.delta[mine.to(contest.delta.device)]
                where = partial.part(f"{contest.turn}-{number}")
                contest.enter(
                    number, mine, second.search(contest.batch, targets, mine, seeds=seeds, partial=where, start=start)
                )

    def _members(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, seeds: Tensor) -> list[Member]:
        settings: list[tuple[Objective, Steps]] = [
            (objective, steps)
            for objective in strongest(recognizer, self.goal)
            for steps in ((Cosine(), Halving()) if self.goal.targeted else (Cosine(),))
        ]
        views = {"": recognizer} | _straight_through(recognizer, batch, targets, seeds)
        queries = max(int(_QUERIES * _FIRST_ROUND * self.forwards), 1)
        number = len(settings) * len(views)
        iterations = _iterations(int((_FIRST_ROUND * self.forwards - queries) / number), recognizer)
        if iterations < _LEAST:
            needed = number * _passes(_LEAST, recognizer) / (_FIRST_ROUND * (1 - _QUERIES))
            raise ValueError(
                f"forwards is {self.forwards}, too few for the {number + 1} members that attack this recogniser: it must be at "
                f"least {int(needed) + number + 1}"
            )
        members = [
            Member(f"{objective.name or 'loss'} {steps.name}{name}", view, self._pgd(objective, steps, iterations))
            for name, view in views.items()
            for objective, steps in settings
        ]
        square = Square(
            self.threat,
            goal=self.goal,
            objective=settings[-1][0],
            num_queries=queries,
            comparison_draws=_COMPARISON_DRAWS,
        )
        return [*members, Member(square.title, recognizer, square)]

    def _pgd(self, objective: Objective, steps: Steps, iterations: int) -> PGD:
        return PGD(
            self.threat,
            goal=self.goal,
            objective=objective,
            steps=steps,
            num_iterations=iterations,
            check_every=-(-iterations // _LOOKS),
            comparison_draws=_COMPARISON_DRAWS,
        )


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble, and the view of the recogniser that it attacks."""

    name: str
    view: Recognizer
    attack: PGD | Square

    def search(
        self,
        batch: AudioBatch,
        targets: Targets,
        rows: Tensor,
        *,
        seeds: Tensor,
        partial: Partial,
        start: Tensor | None = None,
    ) -> Outcome:
        """Attack the utterances at ``rows``, from the perturbations ``start``. Shape: rows (n,), start (n, T)."""
        part = batch.select(rows)
        begun = {} if start is None else {"start": start[:, : part.waveforms.shape[1]]}
        return self.attack.search(self.view, part, targets.select(rows), seeds=seeds[rows], partial=partial, **begun)

    def refined(self, iterations: int) -> Member:
        """The attack that goes on from a perturbation. Queries are followed by steps: they have no steps to shorten."""
        if isinstance(self.attack, Square):
            settings = {name: getattr(self.attack, name) for name in ("goal", "objective", "comparison_draws")}
            attack = PGD(self.attack.threat, **settings)
        else:
            attack = self.attack
        every = -(-iterations // _LOOKS)
        return replace(self, attack=replace(attack, steps=_REFINING, num_iterations=iterations, check_every=every))


def _passes(iterations: int, recognizer: Recognizer) -> int:
    """What an attack of so many iterations costs, its comparisons included."""
    draws = _COMPARISON_DRAWS if recognizer.stochastic else 1
    return iterations + _LOOKS * draws * recognizer.forwards_per_look


def _iterations(passes: int, recognizer: Recognizer) -> int:
    """The iterations that so many passes allow."""
    return passes - _passes(0, recognizer)


def _straight_through(
    recognizer: Recognizer, batch: AudioBatch, targets: Targets, seeds: Tensor
) -> dict[str, Recognizer]:
    """The straight-through form of the defences, where there is one and its gradient is another than the exact one."""
    if not any(isinstance(layer, Defended) for layer in recognizer.layers):
        return {}
    try:
        view = recognizer.view("straight_through")
    except ValueError:
        # A defence that changes the number of samples has no such form.
        return {}
    slopes = [
        input_gradient(
            lambda values, model=model: model.loss(values, batch.lengths, targets, seeds=seeds), batch.waveforms
        )[1]
        for model in (recognizer, view)
    ]
    alike = torch.nn.functional.cosine_similarity(*(slope.double().nan_to_num(0, 0, 0) for slope in slopes), dim=1)
    return {} if float(alike.min()) > _SAME else {" straight-through": view}
