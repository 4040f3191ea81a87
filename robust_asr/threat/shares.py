"""A threat model in which every utterance has a radius of its own, for searches over the radius."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_asr.threat import Ball
from robust_asr.threat.norms import Norm
from robust_asr.types import AudioBatch


@dataclass(frozen=True)
class OwnShare(Ball):
    """The ball around each utterance is ``ball`` with its radius multiplied by the utterance's share, at most 1.

    Attributes:
        shares: id of an utterance -> its share. Every utterance that the threat model meets has one.
    """

    ball: Ball
    shares: Mapping[str, float]

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    @property
    def default_step_factor(self) -> float:
        return self.ball.default_step_factor

    def radius(self, batch: AudioBatch) -> Tensor:
        whole = self.ball.radius(batch)
        return whole * whole.new_tensor([self.shares[utterance] for utterance in batch.ids])

    def size(self, delta: Tensor, batch: AudioBatch) -> Tensor:
        return self.ball.size(delta, batch)

    def columns(self) -> dict[str, Any]:
        return self.ball.columns()

    def defined(self, batch: AudioBatch) -> Tensor:
        return self.ball.defined(batch)
