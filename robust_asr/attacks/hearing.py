"""Loss, gradient and what is heard at one perturbation, from one pass through the recogniser where it allows that.

Legend: B utterances, J draws, T samples.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation
from robust_asr.attacks.goals import Goal
from robust_asr.defenses.base import Defended
from robust_asr.losses import ctc_loss
from robust_asr.models.base import CTCRecognizer, Recognizer
from robust_asr.types import Emissions, Targets, Transcript

_SHARED = ("loss", "loss_from_hidden", "emissions", "transcribe")


class Hearing:
    """What an attack asks about a workload: losses with their gradient on ``num_draws`` draws, success on ``success_draws``.

    Draw j of ``step`` is the same for both, so they may share a pass. A recogniser that says ``stochastic = False`` is asked
    once: all its draws are equal.

    Attributes:
        forwards: passes of each utterance in a look at the loss.
        check_forwards: additional ones where success is looked at too.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        work: Workload,
        *,
        num_draws: int = 1,
        success_draws: int = 1,
        max_samples: int | None = None,
    ) -> None:
        if not getattr(recognizer, "stochastic", True):
            num_draws = success_draws = 1
        shared = num_draws == success_draws and answers_from_emissions(recognizer)
        self.work = work
        self.forwards, self.check_forwards = num_draws, 0 if shared else success_draws
        self._losses = Expectation(recognizer, work, num_draws=num_draws, max_samples=max_samples)
        self._draws = Expectation(
            SharedPass(recognizer) if shared else recognizer, work, num_draws=success_draws, max_samples=max_samples
        )
        self._shared = shared

    def losses(self, waveforms: Tensor, *, step: int, check: bool) -> Tensor:
        """Mean losses. With ``check``, ``hits`` at the same waveforms and step follows. Shape: (B, T) -> (B,) nats."""
        return self._source(check).loss(waveforms, step=step)

    def gradient(self, waveforms: Tensor, *, step: int, check: bool) -> tuple[Tensor, Tensor]:
        """Mean losses and their gradient, see ``losses``. Shape: (B, T) -> (B,) nats, (B, T)."""
        return self._source(check).gradient(waveforms, step=step)

    def hits(self, waveforms: Tensor, goal: Goal, *, step: int) -> Tensor:
        """On which fraction of the draws the goal is reached. Shape: (B, T) -> (B,) float64, on the CPU."""
        heard = self._draws.transcripts(waveforms, step=step)
        return torch.tensor([goal.reached(self.work.texts, texts) for texts in heard], dtype=torch.float64).mean(0)

    def _source(self, check: bool) -> Expectation:
        return self._draws if check and self._shared else self._losses


class SharedPass:
    """A CTC recogniser whose transcripts are those of the passes that its losses made, each asked for once and in order."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._heard: deque[Emissions] = deque()

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        emissions = self.recognizer.emissions(waveforms, lengths, seeds=seeds)
        self._heard.append(Emissions(emissions.log_probs.detach(), emissions.frame_lengths))
        blank = self.recognizer.tokenizer.blank
        return ctc_loss(emissions.log_probs, emissions.frame_lengths, targets, blank=blank)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        del waveforms, lengths, seeds
        recognizer = self.recognizer
        return recognizer.decoder(self._heard.popleft(), recognizer.tokenizer, frame_shift=recognizer.frame_shift)


def answers_from_emissions(recognizer: Recognizer) -> bool:
    """Whether loss and transcript both follow from ``emissions``: CTC, with or without defences, nothing overridden."""
    while isinstance(recognizer, Defended) and not _overridden(recognizer, Defended, ("loss", "transcribe")):
        recognizer = recognizer.recognizer
    return isinstance(recognizer, CTCRecognizer) and not _overridden(recognizer, CTCRecognizer, _SHARED)


def _overridden(recognizer: Recognizer, owner: type[Recognizer], names: tuple[str, ...]) -> bool:
    return any(
        name in vars(recognizer) or getattr(type(recognizer), name) is not getattr(owner, name) for name in names
    )
