"""Recognisers whose best perturbation is known in closed form, and audio of four words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_asr.attacks.base import Attack
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.randomness import keyed_normal, utterance_seeds
from robust_asr.threat import L2, SNR, Linf
from robust_asr.types import AudioBatch, Transcript

# 100 %, 60 %, one sample.
SIZES = (500, 300, 1)
PITCHES = {"NO": 300, "GO": 700, "UP": 1300, "SIX": 2100}


@dataclass(frozen=True)
class Target(Goal):
    """Towards one text for everybody."""

    text: str = "NO"
    sign = -1

    def texts(self, batch: AudioBatch, *, seeds: Tensor) -> tuple[str, ...]:
        return (self.text,) * len(batch)

    def wins(self, text: str, transcript: Transcript) -> bool:
        return text == transcript.text


GOALS = [Untargeted(), Target()]
BALLS = [
    Linf(0.01),
    L2(0.5),
    SNR(20.0),
    SNR(20.0, reading="snr_linf"),
    SNR(20.0, reading="maxsnr_linf"),
]


@dataclass(frozen=True)
class Texts:
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Tensor) -> Texts:
        return Texts(tuple(self.texts[index] for index in indices.tolist()))

    def repeat(self, num: int) -> Texts:
        return Texts(tuple(text for text in self.texts for _ in range(num)))


class Oracle(Recognizer):
    """Counts its passes; a subclass writes its loss. Hears "HIGH" where the loss is above ``level``, else "LOW"."""

    def __init__(self, level: float = 0.0) -> None:
        super().__init__()
        self.level = level
        self.rows: list[int] = []

    def targets(self, texts: Sequence[str]) -> Texts:
        return Texts(tuple(texts))

    def feasible(self, lengths: Tensor, targets: Texts) -> Tensor:
        return torch.ones_like(lengths, dtype=torch.bool)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        losses = self.value(masked(waveforms, lengths), lengths, seeds)
        return [Transcript("HIGH" if loss > self.level else "LOW") for loss in losses.tolist()]

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Texts, *, seeds: Tensor | None = None) -> Tensor:
        self.rows.append(len(waveforms))
        assert len(waveforms) == len(lengths) == len(targets) == len(seeds)
        return self.value(waveforms, lengths, seeds)

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        raise NotImplementedError


class Linear(Oracle):
    """w.x with ``weights`` (T,). It does not mask: the padding has a gradient, which an attack must not follow."""

    def __init__(self, weights: Tensor, level: float = 0.0) -> None:
        super().__init__(level)
        self.register_buffer("weights", weights)

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return waveforms @ self.weights[: waveforms.shape[1]]


class Quadratic(Linear):
    """||x - w||^2 / 2, lowest at w."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return masked(waveforms - self.weights[: waveforms.shape[1]], lengths).square().sum(1) / 2


class Stochastic(Linear):
    """(w + u).x, with u ~ N(0, 1) drawn anew for each seed: the gradient is w + u."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return super().value(waveforms, lengths, seeds) + (
            waveforms * keyed_normal(seeds, lengths, waveforms.shape[1])
        ).sum(1)


class Breaking(Linear):
    """w.x until the first sample exceeds ``bound``; from there on the gradient of that utterance is nan."""

    def __init__(self, weights: Tensor, bound: float) -> None:
        super().__init__(weights)
        self.bound = bound

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return super().value(waveforms, lengths, seeds) + 0 * (self.bound - waveforms[:, 0]).sqrt()


def audio_batch(lengths: Sequence[int], *, level: float = 0.1, seed: int = 0) -> AudioBatch:
    """White noise, each utterance by its own name. Its text is ``LOW``."""
    ids = tuple(f"utterance-{row}" for row in range(len(lengths)))
    sizes = torch.tensor(lengths)
    waveforms = level * keyed_normal(utterance_seeds(seed, ids), sizes, max(lengths))
    return AudioBatch(waveforms.clamp(-1, 1), sizes, ("LOW",) * len(ids), ids)


def seeds_of(batch: AudioBatch, seed: int = 1) -> Tensor:
    return utterance_seeds(seed, batch.ids)


def weights(size: int = 500, seed: int = 3) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def attacked(attack: Attack, recognizer: Oracle, batch: AudioBatch) -> Tensor:
    return attack(recognizer, batch, seeds=seeds_of(batch)).batch.waveforms


def attained(attack: Attack, recognizer: Oracle, batch: AudioBatch) -> list[float]:
    """How far the loss of each utterance moved the attacker's way."""
    before = recognizer.value(batch.waveforms, batch.lengths, seeds_of(batch))
    after = recognizer.value(attacked(attack, recognizer, batch), batch.lengths, seeds_of(batch))
    return (attack.goal.sign * (after - before)).tolist()


def spoken(num: int, *, seed: int = 0) -> AudioBatch:
    """One to three words, each a tone of 0.2 s."""
    generator = torch.Generator().manual_seed(seed)
    time, rows, texts = torch.arange(3200) / 16_000, [], []
    for _ in range(num):
        words = [
            list(PITCHES)[index]
            for index in torch.randint(4, torch.randint(1, 4, (1,), generator=generator).tolist(), generator=generator)
        ]
        tones = [0.2 * (6.2832 * PITCHES[word] * time).sin() * (15.708 * time).sin() for word in words]
        row = torch.cat([torch.cat([tone, torch.zeros(800)]) for tone in tones])
        rows.append(row + 0.01 * torch.randn(len(row), generator=generator))
        texts.append(" ".join(words))
    ids = tuple(f"spoken-{seed}-{row}" for row in range(num))
    lengths = torch.tensor([len(row) for row in rows])
    return AudioBatch(nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, tuple(texts), ids)
