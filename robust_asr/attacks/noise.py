"""Unchanged audio, and noise that ignores the recogniser: the controls beside which every attack is reported."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.settings import require_ball
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.randomness import keyed_normal, keyed_uniform_noise
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Ball, ThreatModel, Unbounded, inside_box
from robust_asr.threat.norms import scaled_to
from robust_asr.types import AudioBatch, Targets


@dataclass(frozen=True)
class Clean(Attack):
    """The unchanged audio."""

    needs_targets: ClassVar[bool] = False

    @property
    def threat(self) -> ThreatModel:
        return Unbounded()

    @property
    def name(self) -> str:
        return "none"

    def columns(self) -> dict[str, Any]:
        return {"attack": "none", "norm": "", "strength": "", "strength_unit": "", "knowledge": ""}

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        return _without_work(batch.waveforms)


class Noise(Attack):
    """White noise on the audio, of a given standard deviation or signal-to-noise ratio; the result stays in [-1, 1].

    The noise of an utterance depends only on its seed, so two strengths are the same noise at two volumes.

    Units: sigma in full-scale amplitude, snr_db in decibels; exactly one of the two is given. Under an SNR a silent utterance
    gets no noise.
    """

    sigma: float | None
    snr_db: float | None
    needs_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sigma is None) == (self.snr_db is None):
            raise ValueError(f"give either sigma or snr_db, found sigma {self.sigma} and snr_db {self.snr_db}")
        if self.sigma is not None and not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma must lie in [0, 1], full-scale amplitude, found {self.sigma}")
        if self.snr_db is not None and not -20 <= self.snr_db <= 120:
            raise ValueError(f"snr_db must lie in [-20, 120], found {self.snr_db}")

    def unit_noise(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        """White noise of variance 1. Shape: (B, T)."""
        raise NotImplementedError

    @property
    def threat(self) -> ThreatModel:
        return Unbounded()

    def columns(self) -> dict[str, Any]:
        bound = ("", self.sigma, "std (audio in [-1,1])") if self.snr_db is None else ("SNR", self.snr_db, "dB")
        return {
            "attack": self.name,
            **dict(zip(("norm", "strength", "strength_unit"), bound, strict=True)),
            "knowledge": "",
        }

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        noise = self.unit_noise(batch, seeds)
        if self.snr_db is None:
            scale = torch.full_like(noise[:, :1], self.sigma)
        else:
            signal = masked(batch.waveforms, batch.lengths).norm(dim=1, keepdim=True)
            scale = signal * 10 ** (-self.snr_db / 20) / noise.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return _without_work(batch.waveforms + inside_box(scale * noise, batch))


@dataclass(frozen=True)
class Gaussian(Noise):
    """White Gaussian noise (OR21 Table 1)."""

    sigma: float | None = None
    snr_db: float | None = None

    @property
    def name(self) -> str:
        return "gaussian noise (no attack)"

    def unit_noise(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        return keyed_normal(seeds, batch.lengths, batch.waveforms.shape[1])


@dataclass(frozen=True)
class Uniform(Noise):
    """White noise, uniform in [-a, a] with a = sigma * sqrt(3)."""

    sigma: float | None = None
    snr_db: float | None = None

    @property
    def name(self) -> str:
        return "uniform noise (no attack)"

    def unit_noise(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        return keyed_uniform_noise(seeds, batch.lengths, batch.waveforms.shape[1]) * 3**0.5


@dataclass(frozen=True)
class MatchedNoise(Attack):
    """Noise that ignores the recogniser, as large as a threat model allows: the control for attacks under that threat model.

    The noise is drawn sample by sample from ``distribution``, scaled until its norm equals the radius, and clamped to [-1, 1].
    In the Euclidean norm and under an SNR, the direction of "gaussian" is therefore uniform on the sphere. In the maximum norm,
    "uniform" fills the ball and "signs" draws its corners, where most attacks end.

    The noise of an utterance depends only on its seed, so two strengths are the same noise at two volumes.
    """

    threat: Ball
    _: KW_ONLY
    distribution: Literal["gaussian", "uniform", "signs"] = "gaussian"
    needs_targets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ball(self)
        if self.distribution not in _MATCHED_NAMES:
            raise ValueError(f"distribution must be one of {', '.join(_MATCHED_NAMES)}, found {self.distribution!r}")

    @property
    def name(self) -> str:
        return _MATCHED_NAMES[self.distribution]

    def columns(self) -> dict[str, Any]:
        return {**super().columns(), "knowledge": ""}

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        draw = keyed_normal if self.distribution == "gaussian" else keyed_uniform_noise
        noise = draw(seeds, batch.lengths, batch.waveforms.shape[1])
        noise = noise.sign() if self.distribution == "signs" else noise
        delta = scaled_to(noise, self.threat.radius(batch), norm=self.threat.norm)
        return _without_work(batch.waveforms + self.threat.project(delta, batch))


_MATCHED_NAMES = {
    "gaussian": "gaussian noise (no attack)",
    "uniform": "uniform noise (no attack)",
    "signs": "noise of random signs (no attack)",
}


def _without_work(waveforms: Tensor) -> Perturbation:
    nothing = torch.zeros(len(waveforms), dtype=torch.long)
    return Perturbation(waveforms, nothing, nothing)
