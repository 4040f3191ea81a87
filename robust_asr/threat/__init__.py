"""Threat models: the perturbations that an attacker may add to an utterance. The padding always stays zero.

This module holds the contract ``ThreatModel``, the balls ``Linf``, ``L2`` and ``SNR``, and ``Region``, a ball around one batch
prepared for the many projections of an attack. ``norms`` holds the arithmetic of norms, ``ranges`` a ball whose radius is drawn
for each utterance in training, ``shares`` one whose radius a search sets for each utterance. A class path of a threat model
occurs in recipes and in saved evaluations, so the classes stay in this module and are not moved to files of their own.

Legend: B utterances, T samples; x a waveform, d its perturbation, n its length in samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robust_asr.masking import length_mask, masked
from robust_asr.randomness import derive, keyed_normal, keyed_uniform, keyed_uniform_noise
from robust_asr.threat.norms import Norm, decibels, euclidean, maximum, scaled_to, shrinkage
from robust_asr.types import AudioBatch

# float32 stores x + d with a relative error of at most 2^-24, so an absolute error of at most 2^-24 of full scale.
_ROUNDING = 2.0**-24
# The accepted relative excess of a norm over the radius, because scaling to the radius is done in float32 too: 1e-5 dB.
_ARITHMETIC = 2.0**-20


class ThreatModel(ABC):
    """The set of allowed perturbations of each utterance. The attacked waveform also stays in [-1, 1], its padding zero.

    A threat model is a frozen dataclass whose fields are its configuration.
    """

    @abstractmethod
    def project(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        """The nearest allowed perturbation, then clamped so that x + d stays in [-1, 1]. Shape: (B, T) -> (B, T)."""

    @abstractmethod
    def random(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        """A random allowed perturbation of each utterance. Shape: seeds (B,) -> (B, T)."""

    @abstractmethod
    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        """The size of each perturbation, in the unit of the bound. Shape: (B, T) -> (B,)."""

    @abstractmethod
    def contains(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        """Whether attacked waveforms are allowed, up to rounding. Shape: (B, T) -> (B,) bool."""

    def within(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        """Attacked waveforms without what float32 rounded x + d up beyond a bound on each sample. Shape: (B, T) -> (B, T)."""
        del batch
        return adversarial

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """``norm``, ``strength`` and ``strength_unit``, written as in the papers' tables."""

    def of_epoch(self, *, seed: int, epoch: int) -> ThreatModel:
        """The threat model to use in an epoch of training: itself, unless its bound is redrawn every epoch."""
        return self

    def defined(self, batch: AudioBatch) -> Tensor:
        """Whether the bound is defined for each utterance; an SNR is not defined for silence. Shape: -> (B,) bool."""
        return torch.ones_like(batch.lengths, dtype=torch.bool)


@dataclass(frozen=True)
class Unbounded(ThreatModel):
    """Any perturbation within [-1, 1]. Units: size is the Euclidean norm of the perturbation."""

    def project(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return inside_box(delta, batch)

    def random(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        raise NotImplementedError("an unbounded threat model has no random start")

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return euclidean(_exact(delta, batch))

    def contains(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        return in_box(adversarial, batch)

    def columns(self) -> dict[str, Any]:
        return {"norm": "", "strength": "unbounded", "strength_unit": ""}


class Ball(ThreatModel):
    """All perturbations whose norm is at most a radius, in the maximum or in the Euclidean norm.

    A subclass writes ``norm``, ``radius``, ``size`` and ``columns``; ``radius`` may differ between utterances.

    Attributes:
        norm: "linf" or "l2".
        default_step_factor: the step of an iterative attack divided by the radius, used if the attack's configuration sets none.
    """

    norm: Norm
    default_step_factor: ClassVar[float]

    @abstractmethod
    def radius(self, batch: AudioBatch) -> Tensor:
        """The largest norm of each utterance's perturbation. Shape: -> (B,), in the precision of the waveforms."""

    def region(self, batch: AudioBatch) -> Region:
        """The ball and the box [-1, 1] around one batch, prepared for many projections."""
        radius, lower, upper = self.radius(batch), -1 - batch.waveforms, 1 - batch.waveforms
        if self.norm == "linf":
            lower, upper = torch.maximum(lower, -radius[:, None]), torch.minimum(upper, radius[:, None])
        return Region(self.norm, radius, masked(lower, batch.lengths), masked(upper, batch.lengths))

    def project(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return self.region(batch).project_(masked(delta, batch.lengths))

    def random(self, batch: AudioBatch, seeds: Tensor) -> Tensor:
        """Perturbations drawn uniformly from the ball, then clamped to the box. In the Euclidean norm most are near the surface."""
        radius, size = self.radius(batch), batch.waveforms.shape[1]
        if self.norm == "linf":
            return self.project(radius[:, None] * keyed_uniform_noise(seeds, batch.lengths, size), batch)
        # The volume of a ball grows with the n-th power of its radius, so a uniform point has the n-th root of U(0, 1) as radius.
        depth = keyed_uniform(derive(seeds, draw=1)).to(radius) ** (1 / batch.lengths.clamp(min=1))
        return self.project(scaled_to(keyed_normal(seeds, batch.lengths, size), radius * depth, norm="l2"), batch)

    def within(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        """Attacked waveforms whose difference from x, computed exactly, has no sample above the radius of a maximum norm.

        A sample beyond it, such as one that float32 rounded up in x + d, becomes the nearest number on the other side. In the
        Euclidean norm the waveforms stay as they are, and ``contains`` tolerates the rounding.
        """
        if self.norm != "linf":
            return adversarial
        exact = batch.replace(batch.waveforms.double())
        radius = self.radius(exact)[:, None]
        nearest = torch.clamp(adversarial.double(), exact.waveforms - radius, exact.waveforms + radius).to(adversarial)
        beyond = (nearest.double() - exact.waveforms).abs() > radius
        return torch.where(beyond, nearest.nextafter(batch.waveforms), nearest)

    def contains(self, adversarial: Tensor, batch: AudioBatch) -> Tensor:
        """Whether the attacked waveforms, as stored, are in the ball. Only the rounding of x + d to float32 is tolerated."""
        delta = _exact(adversarial.double() - batch.waveforms, batch)
        radius = self.radius(batch).double() * (1 + _ARITHMETIC)
        if self.norm == "linf":
            inside = maximum(delta) <= radius + _ROUNDING
        else:
            inside = euclidean(delta) <= radius + _ROUNDING * euclidean(_exact(adversarial, batch))
        return inside & in_box(adversarial, batch)


@dataclass(frozen=True)
class Linf(Ball):
    """No sample moves by more than ``eps``. Units: eps and size in full-scale amplitude."""

    eps: float
    norm: ClassVar[Norm] = "linf"
    default_step_factor: ClassVar[float] = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps must lie in [0, 1], full-scale amplitude, found {self.eps}")

    def radius(self, batch: AudioBatch) -> Tensor:
        return batch.waveforms.new_full((len(batch),), self.eps)

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return maximum(_exact(delta, batch))

    def columns(self) -> dict[str, Any]:
        return {"norm": "Linf", "strength": self.eps, "strength_unit": "amplitude"}


@dataclass(frozen=True)
class L2(Ball):
    """The Euclidean norm of the whole perturbation is at most ``eps``, so longer audio gets less of it per second.

    Units: eps and size in full-scale amplitude; ten seconds of speech have a norm of about 24.
    """

    eps: float
    norm: ClassVar[Norm] = "l2"
    default_step_factor: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps must be finite and not negative, found {self.eps}")

    def radius(self, batch: AudioBatch) -> Tensor:
        return batch.waveforms.new_full((len(batch),), self.eps)

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return euclidean(_exact(delta, batch))

    def columns(self) -> dict[str, Any]:
        return {"norm": "L2", "strength": self.eps, "strength_unit": "amplitude"}


# ``snr_l2``, the reading of the paper's own code, has the norm's name in the paper's table. The other readings have other names,
# so that their results are never compared with that table.
_SNR_NAMES = {"snr_l2": "SNR", "snr_linf": "SNR (Linf)", "maxsnr_linf": "peak SNR (Linf)"}


@dataclass(frozen=True)
class SNR(Ball):
    """A bound on the signal-to-noise ratio (Olivier & Raj 2021, section 5), in one of three readings.

    - ``snr_l2``: ||d||_2 <= ||x||_2 10^(-S/20), which is SNR >= S. The paper prints this radius for the maximum norm, but its
      experiments use the Euclidean norm.
    - ``snr_linf``: |d_t| <= rms(x) 10^(-S/20), which implies SNR >= S and also bounds every sample.
    - ``maxsnr_linf``: |d_t| <= max|x| 10^(-S/20), a ratio of peaks; this bound is looser by the crest factor of the audio.

    Silence has no SNR, so its radius is 0 and attacks refuse silent utterances.

    Units: snr_db in decibels. The size is the realised power SNR, or for ``maxsnr_linf`` the realised ratio of peaks.
    """

    snr_db: float
    _: KW_ONLY
    reading: Literal["snr_l2", "snr_linf", "maxsnr_linf"] = "snr_l2"
    default_step_factor: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        if not -20 <= self.snr_db <= 120:
            raise ValueError(f"snr_db must lie in [-20, 120], found {self.snr_db}")
        if self.reading not in _SNR_NAMES:
            raise ValueError(f"reading must be one of {', '.join(_SNR_NAMES)}, found {self.reading!r}")

    @property
    def norm(self) -> Norm:
        return "l2" if self.reading == "snr_l2" else "linf"

    def radius(self, batch: AudioBatch) -> Tensor:
        signal = _exact(batch.waveforms, batch)
        level = maximum(signal) if self.reading == "maxsnr_linf" else euclidean(signal)
        if self.reading == "snr_linf":
            level = level / batch.lengths.clamp(min=1).sqrt()
        return (level * 10 ** (-self.snr_db / 20)).to(batch.waveforms.dtype)

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return peak_snr(delta, batch) if self.reading == "maxsnr_linf" else power_snr(delta, batch)

    def columns(self) -> dict[str, Any]:
        return {"norm": _SNR_NAMES[self.reading], "strength": self.snr_db, "strength_unit": "dB"}

    def defined(self, batch: AudioBatch) -> Tensor:
        return self.radius(batch) > 0


@dataclass(frozen=True)
class Region:
    """The allowed perturbations of one batch: a box, intersected with a Euclidean ball if the norm is "l2".

    The box bounds every sample; in the padding both bounds are zero.

    Shape: radius (B,); lower and upper (B, T). In the maximum norm the two bounds describe ball and box together.
    """

    norm: Norm
    radius: Tensor
    lower: Tensor
    upper: Tensor

    def project_(self, delta: Tensor) -> Tensor:
        """Project in place. The clamp comes second because it only shrinks samples, so the norm stays within the radius."""
        if self.norm == "l2":
            delta.mul_(shrinkage(delta, self.radius))
        return delta.clamp_(self.lower, self.upper)


def power_snr(delta: Tensor, batch: AudioBatch) -> Tensor:
    """Power signal-to-noise ratio. Shape: (B, T) -> (B,) dB, infinite without a perturbation, nan for unchanged silence."""
    return decibels(euclidean(_exact(batch.waveforms, batch)), euclidean(_exact(delta, batch)))


def peak_snr(delta: Tensor, batch: AudioBatch) -> Tensor:
    """Ratio of the largest magnitudes, which is minus the dB_x(d) of Carlini & Wagner (2018). Shape: (B, T) -> (B,) dB."""
    return decibels(maximum(_exact(batch.waveforms, batch)), maximum(_exact(delta, batch)))


def inside_box(delta: Tensor, batch: AudioBatch) -> Tensor:
    """The perturbation with its padding set to zero, clamped so that x + d stays in [-1, 1]."""
    return masked((batch.waveforms + delta).clamp(-1, 1) - batch.waveforms, batch.lengths)


def in_box(adversarial: Tensor, batch: AudioBatch) -> Tensor:
    """Whether each waveform is finite, within [-1, 1], and zero past its length. Shape: (B, T) -> (B,) bool."""
    inside = adversarial.isfinite() & (adversarial.abs() <= 1)
    silent = length_mask(batch.lengths, adversarial.shape[1]) | (adversarial == 0)
    return (inside & silent).all(dim=1)


def _exact(values: Tensor, batch: AudioBatch) -> Tensor:
    """The values in double precision with zero padding, so that rounding does not change a measured norm."""
    return masked(values.double(), batch.lengths)
