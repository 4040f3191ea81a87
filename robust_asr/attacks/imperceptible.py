"""The imperceptible attack of Qin et al. (2019): a given text, from a perturbation that the utterance makes inaudible.

Legend: B utterances, T samples; d a perturbation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from robust_asr.attacks.base import Perturbation
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.cw import FULL_SCALE, CarliniWagner, as_perturbation
from robust_asr.attacks.descent import Descent, State
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.psychoacoustics import masking_excess, masking_thresholds
from robust_asr.attacks.settings import require_counts, require_within
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key
from robust_asr.storage.partial import NOWHERE, Partial, Restarted
from robust_asr.threat import Unbounded
from robust_asr.types import AudioBatch, Targets

_STEEPEST = 1e15


@dataclass(frozen=True)
class Imperceptible(CarliniWagner):
    """First ``CarliniWagner``; then, under its initial bound, minimise loss + alpha * l_theta (Qin et al. 2019, section 4).

    l_theta measures how far d exceeds the masking thresholds of its utterance, see ``psychoacoustics``. Every ``check_every``
    iterations the transcript is checked: if it is the target and l_theta is the lowest so far, d is saved. The alpha of an
    utterance rises while its target is heard and falls while it is not. The attack returns the d of lowest l_theta among the
    successes of the second stage, its start included, or, without a success, the last d.

    Each row gets ``masking_excess``, 10 log10(1 + l_theta): zero where d lies below the thresholds everywhere, so that attacks of
    equal success and SNR can be told apart. Units: dB above the power at which the quietest tone is heard.

    The fields of ``CarliniWagner`` configure the first stage; ``bound``, ``check_every``, the draws, ``max_samples`` and ``threat``
    hold for both. Defaults as in the authors' implementation.

    Attributes:
        masking_iterations: the number of iterations of the second stage.
        masking_learning_rate: the learning rate of Adam in the second stage (no signs), in full-scale amplitude.
        slow_after: iterations of the second stage after which its learning rate is divided by ten.
        alpha: the value of alpha at the start of the second stage.
        raise_every, raise_by: every ``raise_every`` iterations alpha is multiplied by ``raise_by`` if the target is heard.
        lower_every, lower_by, lowest_alpha: every ``lower_every`` iterations alpha is multiplied by ``lower_by`` if the target is
            not heard, but never falls below ``lowest_alpha``.
        two_adam: one Adam update for each of the two terms, with shared moments, as the authors' code does; False: one update for
            their sum.
        qin_gain_bug: measure the perturbation as 4.26 dB too loud, as the authors' code does.
    """

    goal: Goal = field()
    _: KW_ONLY
    masking_iterations: int = 4000
    masking_learning_rate: float = 1 / FULL_SCALE
    slow_after: int = 3000
    alpha: float = 0.05
    raise_every: int = 20
    raise_by: float = 1.2
    lower_every: int = 50
    lower_by: float = 0.8
    lowest_alpha: float = 5e-4
    two_adam: bool = False
    qin_gain_bug: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "masking_iterations", "slow_after", "raise_every", "lower_every")
        rate = self.masking_learning_rate
        require_within(self, "masking_learning_rate", 0 < rate <= 2, "(0, 2], full-scale amplitude")
        require_within(self, "raise_by", 1 <= self.raise_by < float("inf"), "[1, inf)")
        require_within(self, "lower_by", 0 < self.lower_by <= 1, "(0, 1]")
        require_within(self, "lowest_alpha", 0 <= self.lowest_alpha < float("inf"), "[0, inf)")
        require_within(self, "alpha", self.lowest_alpha <= self.alpha < float("inf"), f"[{self.lowest_alpha}, inf)")
        for name in ("raise_every", "lower_every"):
            multiple = getattr(self, name) % self.check_every == 0
            require_within(self, name, multiple, f"the multiples of check_every, {self.check_every}")

    @property
    def name(self) -> str:
        return "Imperceptible" if self.goal.targeted else "Imperceptible untargeted"

    def columns(self) -> dict[str, Any]:
        """The columns of the papers' tables; the strength is empty if no threat model was given, as in ZE21 Table I."""
        return super().columns() | ({"strength": ""} if self.threat == Unbounded() else {})

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        work = Workload.whole(batch, targets, self.goal.compared(recognizer, batch, seeds=seeds), seeds=seeds)
        saved = partial.load()
        if saved is not None and saved["stage"] == Key.SECOND_STAGE:
            # The saved state of the second stage replaces this placeholder; it contains the result of the first stage.
            nothing = State.at(torch.zeros_like(batch.waveforms))
            made = as_perturbation(batch, self.hide(recognizer, work, nothing, partial))
        else:
            first = self.shrink(recognizer, work, partial)
            made = as_perturbation(batch, self.hide(recognizer, work, first, Restarted(partial)))
        return replace(made, facts=self._facts(made.waveforms, batch, recognizer.sample_rate))

    @staticmethod
    @torch.no_grad()
    def _facts(waveforms: Tensor, batch: AudioBatch, sample_rate: int) -> tuple[dict[str, Any], ...]:
        thresholds = masking_thresholds(batch.waveforms, batch.lengths, sample_rate=sample_rate)
        levels = 10 * torch.log1p(masking_excess(waveforms - batch.waveforms, thresholds).double()) / math.log(10)
        return tuple({"masking_excess": round(level, 4)} for level in levels.tolist())

    def hide(self, recognizer: Recognizer, work: Workload, first: State, partial: Partial = NOWHERE) -> State:
        """Run the second stage, starting from the best perturbation of the first."""
        return _Masking(self, recognizer, work, first).run(partial)


@dataclass
class _MaskingState(State):
    """Shape: repelling (B, T), the gradient of l_theta; lowest (B,), the l_theta of the best success, or infinity before any."""

    repelling: Tensor
    lowest: Tensor
    alpha: Tensor


class _Masking(Descent):
    """The second stage of ``Imperceptible``."""

    settings: Imperceptible
    state: _MaskingState
    first_step = Key.SECOND_STAGE

    def __init__(self, attack: Imperceptible, recognizer: Recognizer, work: Workload, first: State) -> None:
        alpha = first.best.new_full((len(work),), attack.alpha)
        state = _MaskingState.at(
            first.best, repelling=torch.zeros_like(first.best), lowest=torch.full_like(alpha, torch.inf), alpha=alpha
        )
        for name in ("intact", "moved", "iterations", "forwards"):
            setattr(state, name, getattr(first, name).clone())
        self.num_iterations = attack.masking_iterations
        batch = work.batch
        self._thresholds = masking_thresholds(batch.waveforms, batch.lengths, sample_rate=recognizer.sample_rate)
        super().__init__(attack, recognizer, work, state)

    def select(self, rows: Tensor) -> None:
        self._thresholds = self._thresholds.select(rows.to(self._thresholds.loudest.device))

    def gradients(self) -> Sequence[Tensor]:
        state = self.state
        # Adam squares the gradients, and in silent passages, with low thresholds, the squares would overflow float32.
        repelling = (state.alpha[:, None] * state.repelling).clamp(-_STEEPEST, _STEEPEST)
        return [state.gradient, repelling] if self.settings.two_adam else [state.gradient + repelling]

    def learning_rate(self, iteration: int) -> float:
        return self.settings.masking_learning_rate * (0.1 if iteration >= self.settings.slow_after else 1)

    def bound(self) -> Tensor:
        return torch.full_like(self.state.alpha, self.settings.bound)

    def observe(self, losses: Tensor, reached: Tensor | None, iteration: int) -> None:
        del losses
        state = self.state
        excess, state.repelling = input_gradient(self._excess, state.delta)
        better = state.lowest.isinf()
        if reached is not None:
            lower = reached & (excess < state.lowest)
            state.lowest = torch.where(lower, excess, state.lowest)
            better = state.lowest.isinf() | lower
            self._adapt(reached, iteration)
        state.best = torch.where(better[:, None], state.delta, state.best)

    def done(self) -> Tensor:
        return self.state.lowest == 0

    def _excess(self, delta: Tensor) -> Tensor:
        return masking_excess(delta, self._thresholds, qin_gain_bug=self.settings.qin_gain_bug)

    def _adapt(self, reached: Tensor, iteration: int) -> None:
        """Raise the weight of audibility, alpha, where the target is heard, and lower it where it is not."""
        attack, alpha = self.settings, self.state.alpha
        if iteration and iteration % attack.raise_every == 0:
            alpha = torch.where(reached, alpha * attack.raise_by, alpha)
        if iteration and iteration % attack.lower_every == 0:
            lower = (alpha * attack.lower_by).clamp(min=attack.lowest_alpha)
            alpha = torch.where(reached, alpha, lower)
        self.state.alpha = alpha
