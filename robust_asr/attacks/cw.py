"""The attack of Carlini and Wagner (2018) on speech: the smallest perturbation that makes the recogniser hear a given text.

Legend: B utterances, T samples; d a perturbation, b its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.descent import Descent, State
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.settings import require_counts, require_within
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import ThreatModel, Unbounded
from robust_asr.threat.norms import euclidean, maximum
from robust_asr.types import AudioBatch, Targets

# Full scale of 16-bit audio, the unit of the authors' implementations.
FULL_SCALE = 32768


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimise the loss of the target under a bound on the largest sample of d; the bound shrinks after every success.

    Each utterance has its own bound b and is attacked until the iterations end. A success is a d whose text is heard on at least
    ``success_fraction`` of ``success_draws`` draws. After a success, d is saved as the best so far and shrinks to decrease * d,
    and its bound to decrease * max|d|, so every further success is smaller in the maximum norm. Steps shrink with the bound, as
    the authors optimise v in d = b v. The attack returns the last success, or, without a success, the perturbation of lowest
    loss. An utterance that is transcribed as the target without any perturbation stays unchanged.

    The defaults are the schedule of the authors' implementation (Carlini and Wagner 2018, section III, and their code: Adam on
    the signs of the gradient, no penalty on the norm), but not the noise of two 16-bit steps that their code adds to every pass.
    Their learning rate is made for a thousand iterations. In sixty it succeeds, but far louder than need be: a tenth of it is
    quieter (benchmarks/README.md), and may be too small for a recogniser that is harder to move.

    Attributes:
        bound: b at the start, in full-scale amplitude.
        learning_rate: the learning rate of Adam while b is ``bound``, in full-scale amplitude.
        check_every: the transcript is checked after every so many iterations, and at the start and the end.
        max_decreases: stop attacking an utterance after this many successes; None: never stop early.
        num_draws: draws of a random recogniser over which each gradient is averaged (expectation over transformation).
        success_draws: draws on which a success is decided; if 1, a single lucky draw of a random recogniser shrinks b.
        sign_gradient: give Adam the signs of the gradient.
        l2_weight: the weight of the Euclidean norm of d, which is added to the loss.
        max_samples: the largest forward pass, utterances times draws times padded length; by default that of one draw of the
            whole batch.
        threat: a threat model that d must satisfy in addition to its bound.
    """

    goal: Goal = field()
    _: KW_ONLY
    threat: ThreatModel = field(default_factory=Unbounded)
    bound: float = 2000 / FULL_SCALE
    learning_rate: float = 100 / FULL_SCALE
    num_iterations: int = 1000
    check_every: int = 10
    decrease: float = 0.8
    max_decreases: int | None = None
    num_draws: int = 1
    success_draws: int = 1
    success_fraction: float = 1.0
    sign_gradient: bool = True
    l2_weight: float = 0.0
    max_samples: int | None = None
    knowledge: Knowledge = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("goal", Goal), ("threat", ThreatModel)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be a {kind.__name__}, found {getattr(self, name)!r}")
        require_counts(self, "num_iterations", "check_every", "num_draws", "success_draws")
        require_counts(self, "max_decreases", "max_samples", optional=True)
        require_within(self, "bound", 0 <= self.bound <= 2, "[0, 2], full-scale amplitude")
        require_within(self, "learning_rate", 0 < self.learning_rate <= 2, "(0, 2], full-scale amplitude")
        require_within(self, "decrease", 0 < self.decrease < 1, "(0, 1)")
        require_within(self, "success_fraction", 0 < self.success_fraction <= 1, "(0, 1]")
        require_within(self, "l2_weight", 0 <= self.l2_weight < float("inf"), "[0, inf)")

    @property
    def name(self) -> str:
        return "CW" if self.goal.targeted else "CW untargeted"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        work = Workload.whole(batch, targets, self.goal.compared(recognizer, batch, seeds=seeds), seeds=seeds)
        return as_perturbation(batch, self.shrink(recognizer, work, partial))

    def shrink(self, recognizer: Recognizer, work: Workload, partial: Partial = NOWHERE) -> State:
        """Run the search, starting from a perturbation of zero."""
        return _Shrinking(self, recognizer, work).run(partial)


@dataclass(frozen=True)
class OlivierCarliniWagner(CarliniWagner):
    """CW with the numbers of Olivier and Raj (2021): check in every iteration, halve the bound, average 16 draws.

    The text of the paper adds the Euclidean norm to the loss. The authors' code, which made the tables, does not add it, and it
    decides success on one draw (``success_draws``).
    """

    _: KW_ONLY
    bound: float = 0.06
    learning_rate: float = 1e-3
    check_every: int = 1
    decrease: float = 0.5
    num_draws: int = 16


@dataclass
class _ShrinkingState(State):
    """Shape: (B,) each. limit: b; size: max|d| of the last success, else infinite; lowest: loss before any success."""

    limit: Tensor
    size: Tensor
    lowest: Tensor
    successes: Tensor


class _Shrinking(Descent):
    """The descent of ``CarliniWagner``."""

    settings: CarliniWagner
    state: _ShrinkingState

    def __init__(self, attack: CarliniWagner, recognizer: Recognizer, work: Workload) -> None:
        delta = torch.zeros_like(work.batch.waveforms)
        limit, none = delta.new_full((len(work),), attack.bound), delta.new_full((len(work),), torch.inf)
        successes = torch.zeros_like(limit, dtype=torch.long)
        state = _ShrinkingState.at(delta, limit=limit, size=none, lowest=none, successes=successes)
        self.num_iterations = attack.num_iterations
        super().__init__(attack, recognizer, work, state)

    def gradients(self) -> Sequence[Tensor]:
        gradient, delta = self.state.gradient, self.state.delta
        if self.settings.l2_weight:
            length = euclidean(delta)[:, None]
            # The Euclidean norm is not differentiable at zero; there its gradient is taken as zero.
            gradient = gradient + self.settings.l2_weight * torch.where(length > 0, delta / length, 0)
        return [gradient.sign() if self.settings.sign_gradient else gradient]

    def learning_rate(self, iteration: int) -> Tensor:
        del iteration
        return self.settings.learning_rate * (self.state.limit / self.settings.bound)[:, None]

    def bound(self) -> Tensor:
        return self.state.limit

    def observe(self, losses: Tensor, reached: Tensor | None, iteration: int) -> None:
        del iteration
        state = self.state
        better = state.size.isinf() & (losses < state.lowest)
        state.lowest = torch.where(better, losses, state.lowest)
        if reached is not None:
            size = maximum(state.delta)
            state.limit = torch.where(reached, self.settings.decrease * torch.minimum(state.limit, size), state.limit)
            state.size = torch.where(reached, size, state.size)
            state.successes += reached
            better = better | reached
        state.best = torch.where(better[:, None], state.delta, state.best)
        if reached is not None:
            state.delta = torch.where(reached[:, None], self.settings.decrease * state.delta, state.delta)

    def done(self) -> Tensor:
        nothing_left = self.state.limit == 0
        most = self.settings.max_decreases
        return nothing_left if most is None else nothing_left | (self.state.successes >= most)


def as_perturbation(batch: AudioBatch, state: State) -> Perturbation:
    return Perturbation(batch.waveforms + state.best, state.iterations, state.forwards, state.status())
