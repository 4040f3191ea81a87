"""The standard evaluation: an ensemble of attacks that nobody has to tune, within a budget of passes.

Legend: B utterances, T samples, n utterances still attacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from robust_asr import checkpoint
from robust_asr.attacks.aims import Aim, LossOf
from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.climbing import passes_to_climb
from robust_asr.attacks.contest import Contest
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.members import COMPARISON_DRAWS, Member
from robust_asr.attacks.objectives import Objective, strongest
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.settings import require_ball, require_counts
from robust_asr.attacks.square import Square
from robust_asr.attacks.steps import Cosine, Halving, Steps
from robust_asr.attacks.transfer import Transfer
from robust_asr.defenses.base import Defended
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball
from robust_asr.types import AudioBatch, Targets

# Raised whenever the numbers that the attack finds may change, so that tables of two versions are never compared in silence.
VERSION = 1
# The share of the budget that the first round may take, and the share of that round for the queries without a gradient: so few
# do little damage, they are an alarm.
_FIRST_ROUND, _QUERIES = 0.7, 0.1
# A member's perturbations are compared this often, or less often where that would leave fewer iterations than the least, with
# which it would be no attack.
_LOOKS, _LEAST = 3, 5
# Two gradients whose cosine is larger are one.
_SAME = 0.99


@dataclass(frozen=True)
class Standard(Attack):
    """The worst of several attacks for each utterance, within a number of passes: the only setting beside the threat model.

    In the first round every member attacks the clean audio: ``PGD`` with falling steps on each of the ``strongest`` objectives
    (for a target, with falling and with halving steps on its loss), the same through the straight-through form of the defences
    where that has another gradient, and on a surrogate where one is named; and ``Square``, whose success without a gradient would
    show that the gradients are masked. In the second round the member that did the most damage goes on from there, for each
    utterance. Where steps along gradients did no more damage than the few queries without one, ``Square`` gets half of these
    passes, or all of them if every gradient was zero.

    The perturbation with the most damage to the transcript is kept, judged on draws that neither an iteration nor the verdict
    uses. An utterance that is lost (as many errors as words; the target reached on all of these draws) is not attacked further,
    and what it leaves of its budget goes to the other utterances of the batch. So the second round, and whether the
    straight-through form is a member, depend on which utterances share a batch; their order changes nothing.

    Perturbations to start from count as results of the first member: the second round may go on from them.

    The name holds the version and the budget, and each row of an evaluation names the member that won. AutoAttack (Croce & Hein
    2020) is the same idea for images.

    Attributes:
        forwards: the passes of an utterance, on average over the batch, at most; those that compare perturbations included, and
            those of a surrogate.
        surrogate: the checkpoint of another recogniser, whose gradients one more member follows: what transfers from it breaks a
            recogniser whose own gradients are masked.

    Errors: ValueError for a budget that is too small for the members, and for a recogniser without a gradient in its audio.
    """

    threat: Ball
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    forwards: int = 200
    surrogate: str | None = None
    file_arguments: ClassVar[tuple[str, ...]] = ("surrogate",)
    takes_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ball(self)
        require_counts(self, "forwards")

    @property
    def name(self) -> str:
        surrogate = " + surrogate" if self.surrogate else ""
        return f"standard-{VERSION}{' targeted' if self.goal.targeted else ''} ({self.forwards} forwards){surrogate}"

    @property
    def core(self) -> Attack:
        return PGD(self.threat, goal=self.goal)

    def require(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> None:
        targets = recognizer.targets(self.goal.texts(batch, seeds=seeds))
        with frozen_for_attack(recognizer):
            self._members(recognizer, _views(recognizer, batch, targets, seeds))

    def perturb(
        self,
        recognizer: Recognizer,
        batch: AudioBatch,
        targets: Targets,
        *,
        seeds: Tensor,
        partial: Partial = NOWHERE,
        start: Tensor | None = None,
    ) -> Perturbation:
        texts = self.goal.compared(recognizer, batch, seeds=seeds)
        views = _views(recognizer, batch, targets, seeds)
        members = self._members(recognizer, views)
        lost = torch.tensor([self.goal.most_damage(text) for text in texts], dtype=torch.float64)
        contest = Contest(batch, lost, len(members))
        contest.forwards += _probes(recognizer)
        contest.take_up(partial.load())
        if start is not None and contest.turn == 0:
            contest.begin(members[0].judged(batch, targets, start, seeds=seeds))
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
        left = self._budget(recognizer) * len(contest.batch) - int(contest.forwards.sum())
        # An utterance that nothing breaks gets at most three budgets, so the time of an evaluation stays near to what was asked.
        passes = min(left // max(len(contest.remaining()), 1), 2 * self.forwards)
        guided = torch.tensor([isinstance(member.attack, Transfer) for member in members])
        for place, (number, rows, share) in enumerate(_second_round(contest, guided, passes)):
            objective, model = members[number].passing
            guiding = passes_to_climb(self.goal, model) + _passes_to_look(recognizer) if guided[number] else 0
            iterations = share - objective.passes_to_aim(model) - guiding - _LOOKS * _passes_to_look(model)
            if len(rows) and iterations >= _LEAST:
                second = replace(members[number], attack=members[number].attack.refining(iterations))
                start, where = contest.delta[rows.to(contest.delta.device)], partial.part(f"{contest.turn}-{place}")
                found = second.search(contest.batch, targets, rows, seeds=seeds, partial=where, start=start)
                contest.enter(number, rows, found)

    def _members(self, recognizer: Recognizer, views: dict[str, Recognizer]) -> list[Member]:
        settings: list[tuple[Objective, Steps]] = [
            (objective, steps)
            for objective in strongest(recognizer, self.goal)
            for steps in ((Cosine(), Halving()) if self.goal.targeted else (Cosine(),))
        ]
        objectives = [(objective, recognizer) for objective, _ in settings] * len(views)
        if self._other is not None:
            guiding = strongest(self._other, self.goal)[0]
            objectives.append((guiding, self._other))
        queried = settings[-1][0]
        budget = self._budget(recognizer)
        queries, iterations, looks = _shares(budget, objectives, queried, recognizer)
        if iterations < _LEAST:
            enough = budget
            while _shares(enough, objectives, queried, recognizer)[1] < _LEAST:
                enough += 1
            raise ValueError(
                f"forwards is {self.forwards}, too few for the {len(objectives) + 1} members that attack this recogniser: it "
                f"must be at least {enough + self.forwards - budget}"
            )
        members = [
            Member(
                f"{objective.name or 'loss'} {steps.name}{name}", view, self._pgd(objective, steps, iterations, looks)
            )
            for name, view in views.items()
            for objective, steps in settings
        ]
        if self._other is not None:
            attack = Transfer(self._pgd(guiding, Cosine(), iterations, looks), self._other)
            members.append(Member("transfer", recognizer, attack))
        square = Square(
            self.threat, goal=self.goal, objective=queried, num_queries=queries, comparison_draws=COMPARISON_DRAWS
        )
        return [*members, Member(square.title, recognizer, square)]

    def _budget(self, recognizer: Recognizer) -> int:
        """The passes of an utterance without those that say what the recognisers themselves write."""
        models = [recognizer] if self._other is None else [recognizer, self._other]
        return self.forwards - sum(passes_to_climb(self.goal, model) for model in models)

    @cached_property
    def _other(self) -> Recognizer | None:
        """The surrogate."""
        return None if self.surrogate is None else checkpoint.load(self.surrogate)

    def _pgd(self, objective: Objective, steps: Steps, iterations: int, looks: int) -> PGD:
        return PGD(
            self.threat,
            goal=self.goal,
            objective=objective,
            steps=steps,
            num_iterations=iterations,
            check_every=-(-iterations // looks),
            comparison_draws=COMPARISON_DRAWS,
        )


def _second_round(contest: Contest, guided: Tensor, passes: int) -> list[tuple[int, Tensor, int]]:
    """Which member goes on from which utterances, with how many passes for each. The queries are the last member.

    Shape: guided (M,) bool, whether a member follows the gradients of a surrogate.
    """
    rows, queries = contest.remaining(), contest.damages.shape[1] - 1
    # Where nothing was better than the start, the first member goes on from it.
    winners = contest.winners[rows].clamp(min=0)
    masked = ~contest.moved[rows] & ~guided[winners]
    alone = masked | (winners == queries)
    doubtful = contest.damages[rows, :queries].amax(1) <= contest.damages[rows, queries]
    shifts = [
        (number, rows[~alone & (winners == number) & (doubtful == shared)], passes // (1 + shared))
        for number in range(queries)
        for shared in (False, True)
    ]
    return [*shifts, (queries, rows[alone], passes), (queries, rows[~alone & doubtful], passes // 2)]


def _shares(
    forwards: int, objectives: Sequence[tuple[Objective, Recognizer]], queried: Objective, recognizer: Recognizer
) -> tuple[int, int, int]:
    """The queries without a gradient in the first round, and iterations and comparisons of each of the other members.

    Args:
        objectives: those of the other members, each with the recogniser that the member's iterations pass.
        queried: the objective of the queries.
    """
    first = int(_FIRST_ROUND * forwards) - _probes(recognizer)
    queries = max(int(_QUERIES * first), 1)
    aims = sum(objective.passes_to_aim(model) for objective, model in (*objectives, (queried, recognizer)))
    # What queries and surrogates find is compared once.
    once = 1 + sum(model is not recognizer for _, model in objectives)
    left = (first - queries - aims - once * _passes_to_look(recognizer)) // len(objectives)
    look = max(_passes_to_look(model) for _, model in objectives)
    looks = _LOOKS
    while looks > 1 and left - looks * look < _LEAST:
        looks -= 1
    return queries, left - looks * look, looks


def _passes_to_look(recognizer: Recognizer) -> int:
    return _draws(recognizer) * recognizer.forwards_per_look


def _draws(recognizer: Recognizer) -> int:
    return COMPARISON_DRAWS if recognizer.stochastic else 1


def _views(recognizer: Recognizer, batch: AudioBatch, targets: Targets, seeds: Tensor) -> dict[str, Recognizer]:
    """What the members attack: the recogniser, and the straight-through form of its defences where its gradient is another.

    Errors: ValueError where neither has a gradient in the audio.
    """
    view = _straight_through(recognizer)
    if view is None:
        return {"": recognizer}
    aim = targets if isinstance(targets, Aim) else LossOf(targets, 1)

    def slope(model: Recognizer) -> Tensor:
        return input_gradient(lambda values: aim.values(model, values, batch.lengths, seeds=seeds), batch.waveforms)[1]

    other = {" straight-through": view}
    try:
        exact = slope(recognizer)
    except ValueError:
        # A defence cuts the gradient off.
        return other
    alike = torch.nn.functional.cosine_similarity(
        *(found.double().nan_to_num(0, 0, 0) for found in (exact, slope(view))), dim=1
    )
    return {"": recognizer} | ({} if float(alike.min()) > _SAME else other)


def _probes(recognizer: Recognizer) -> int:
    """The passes of an utterance in ``_views``."""
    return 0 if _straight_through(recognizer) is None else 2


def _straight_through(recognizer: Recognizer) -> Recognizer | None:
    """The straight-through form of the defences; None without a defence, or where one changes the number of samples."""
    if not any(isinstance(layer, Defended) for layer in recognizer.layers):
        return None
    try:
        return recognizer.view("straight_through")
    except ValueError:
        return None
