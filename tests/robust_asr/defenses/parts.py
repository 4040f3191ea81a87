"""Defences in closed form, and a recogniser that shows what reaches it."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_asr.defenses.base import Defense
from robust_asr.gradients import straight_through
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.text import CharacterTokenizer
from robust_asr.types import TokenTargets, Transcript


class Bend(Defense):
    """y = x + strength * x^3, with the derivative 1 + 3 * strength * x^2."""

    name = "BEND"

    def __init__(self, strength: float = 2.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return waveforms + self.strength * waveforms**3, lengths

    def slope(self, waveforms: Tensor) -> Tensor:
        return 1 + 3 * self.strength * waveforms**2


class Steps(Defense):
    """Rounds to multiples of 1/8, which has no gradient of its own."""

    name = "STEPS"

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return straight_through((8 * waveforms).round() / 8, waveforms), lengths


class Gain(Defense):
    """A factor that is trained, and something left in the padding, which no defence should do."""

    name = "GAIN"

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.factor * waveforms + torch.where(waveforms == 0, 0.1, 0.0), lengths


class Halved(Defense):
    """Every second sample."""

    name = "HALVED"
    padding_invariant = False
    keeps_length = False

    def num_samples(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return waveforms[:, ::2], self.num_samples(lengths)


class Ear(Recognizer):
    """Keeps what it was given; its loss is the sum of x^3 / 3 over the samples, with the gradient x^2."""

    stochastic = False

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = CharacterTokenizer()
        self.heard: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def targets(self, texts: list[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return targets.token_lengths <= lengths

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: TokenTargets, *, seeds: Tensor | None = None) -> Tensor:
        self.heard.append((waveforms.detach(), lengths, seeds))
        return (masked(waveforms, lengths) ** 3).sum(1) / 3

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        assert not torch.is_grad_enabled()
        self.heard.append((waveforms, lengths, seeds))
        return [Transcript("LOUD" if row.abs().max() > 0.5 else "QUIET") for row in waveforms]
