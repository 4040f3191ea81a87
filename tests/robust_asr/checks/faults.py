"""Faults that evaluations have had, planted: attacks that harm the model or themselves, systems that hide their gradient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.attacks.aims import Aim
from robust_asr.attacks.base import Perturbation
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.objectives import Loss, Objective
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import straight_through
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import Partial
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch, Targets, Transcript


class Drifting(PaperPGD):
    """Puts the model into training mode, as attack libraries do: BatchNorm drifts, dropout is on."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        recognizer.train()
        return super().perturb(recognizer, batch, targets, seeds=seeds)


class Training(PaperPGD):
    """Moves a weight."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        with torch.no_grad():
            next(recognizer.parameters()).mul_(1 + 1e-6)
        return super().perturb(recognizer, batch, targets, seeds=seeds)


class Accumulating(PaperPGD):
    """Leaves gradients in the model."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        parameter = next(recognizer.parameters())
        parameter.grad = torch.ones_like(parameter)
        return super().perturb(recognizer, batch, targets, seeds=seeds)


class OneDraw(PaperPGD):
    """Is called EoT-16 and averages one gradient."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        return PaperPGD.perturb(replace(self, num_draws=1), recognizer, batch, targets, seeds=seeds)


class SameDraw(PaperPGD):
    """Averages sixteen gradients of one draw."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        return super().perturb(_Fixed(recognizer, seeds[0]), batch, targets, seeds=seeds)


@dataclass(frozen=True)
class Reversed(Loss):
    """Lowers the loss that it should raise."""

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        aim = super().aim(recognizer, batch, targets, goal, seeds=seeds)
        return replace(aim, sign=-aim.sign)


@dataclass(frozen=True)
class Backwards(PaperPGD):
    """Steps down the loss that it should climb."""

    objective: Objective = field(default_factory=Reversed)


class Timid(PaperPGD):
    """Attacks in .55 of its radius."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        smaller = replace(self, threat=Linf(0.55 * self.threat.eps))
        return PaperPGD.perturb(smaller, recognizer, batch, targets, seeds=seeds)


@dataclass(frozen=True)
class Sparse(Constant):
    """Steps along a fifth of the gradient."""

    def advance(self, run: Any, values: Tensor, gradient: Tensor, *rest: Any) -> None:
        kept = torch.arange(gradient.shape[1]) % 5 == 0
        super().advance(run, values, gradient * kept, *rest)


class SharedNoise(MatchedNoise):
    """Draws one noise for all utterances, as one generator a rank would."""

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        return super().perturb(recognizer, batch, targets, seeds=torch.zeros_like(seeds))


class SharedDefense(GaussianNoise):
    """Has one noise for everybody and every call."""

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(waveforms, lengths, seeds=torch.zeros(len(waveforms), dtype=torch.long))


class Bypassed(Recognizer):
    """A defended recogniser that is attacked behind its defence and scored without it."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer

    def targets(self, texts: list[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.feasible(lengths, targets)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.recognizer.transcribe(waveforms, lengths, seeds=seeds)


class Muffled(Bypassed):
    """Writes what it hears of the lowest 2 kHz, while the loss has the whole band."""

    def __init__(self, recognizer: Recognizer, share: float = 0.25) -> None:
        super().__init__(recognizer)
        self.stochastic, self.share = recognizer.stochastic, share

    def muffled(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        spectra = torch.fft.rfft(waveforms, dim=1)
        spectra[:, int(self.share * spectra.shape[1]) :] = 0
        return masked(torch.fft.irfft(spectra, n=waveforms.shape[1], dim=1), lengths)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(self.muffled(waveforms, lengths), lengths, seeds=seeds)


class MuffledLoss(Muffled):
    """Writes what it hears of the whole band, while the loss has the lowest 2 kHz."""

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(self.muffled(waveforms, lengths), lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)


class TwoFaced(Defended):
    """Scored without its defence where loss and transcript are asked for together."""

    def loss_and_transcripts(
        self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None
    ) -> tuple[Tensor, list[Transcript]]:
        return self.recognizer.loss_and_transcripts(waveforms, lengths, targets, seeds=seeds)


class Fronted(Bypassed):
    """A recogniser behind something done to its audio."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__(recognizer)
        self.stochastic = False

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        raise NotImplementedError

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(self.front(waveforms, lengths, seeds), lengths, targets)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(self.front(waveforms, lengths, seeds), lengths)


class Rounded(Fronted):
    """Eight bits, whose gradient is zero."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return (128 * waveforms).round() / 128


class RoundedCoarsely(Fronted):
    """Three bits, which claim the gradient of the identity."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return straight_through((4 * waveforms).round() / 4, waveforms)


class Detached(Fronted):
    """Lets a hundredth of the gradient through."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return 0.99 * waveforms.detach() + 0.01 * waveforms


class Shattered(Fronted):
    """A ripple nobody hears, whose slope hides that of the audio."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return waveforms + 1e-6 * (1e8 * waveforms).sin()


class Thresholded(Fronted):
    """Soft samples have no gradient."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return torch.where(waveforms.abs() > 0.1, waveforms, waveforms.detach())


class PartlyDetached(Fronted):
    """Detaches a part of the audio; a subclass says which part keeps its gradient."""

    def keeps(self, waveforms: Tensor) -> Tensor:
        """Shape: (B, T) -> (B, T) bool."""
        raise NotImplementedError

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return torch.where(self.keeps(waveforms.detach()), waveforms, waveforms.detach())


class LoudDetached(PartlyDetached):
    """The louder third of the frames has no gradient."""

    def keeps(self, waveforms: Tensor) -> Tensor:
        loudness = functional.avg_pool1d(waveforms.square()[:, None], 401, 1, 200)[:, 0]
        return loudness <= loudness.quantile(2 / 3, dim=1, keepdim=True)


class SoftDetached(LoudDetached):
    """Only the louder third of the frames has a gradient."""

    def keeps(self, waveforms: Tensor) -> Tensor:
        return ~super().keeps(waveforms)


class FifthOfSamples(PartlyDetached):
    def keeps(self, waveforms: Tensor) -> Tensor:
        return torch.arange(waveforms.shape[1]).expand_as(waveforms) % 5 == 0


class FifthOfFrames(PartlyDetached):
    def keeps(self, waveforms: Tensor) -> Tensor:
        return torch.arange(waveforms.shape[1]).expand_as(waveforms) // 160 % 5 == 0


class Dropping(Fronted):
    """Dropout that no mode switches off."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return functional.dropout(waveforms, 0.1, training=True)


class Circular(Fronted):
    """An echo by a circular convolution: the end is heard at the beginning, unless padding lies between."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return waveforms + waveforms.roll(3000, dims=1)


class Secretive(Fronted):
    """Adds noise by the seeds and says that it does not."""

    def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return GaussianNoise(0.05)(waveforms, lengths, seeds=seeds)[0]


class _Fixed(Fronted):
    """Answers every draw with the same one."""

    def __init__(self, recognizer: Recognizer, seed: Tensor) -> None:
        super().__init__(recognizer)
        self.stochastic = True
        self._seed = seed

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(waveforms, lengths, targets, seeds=self._seed.expand(len(waveforms)))
