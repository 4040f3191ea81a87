"""The values that travel between data, recognisers and attacks.

Legend: B utterances, T samples, F frames, D hidden units, U labels, V vocabulary.
Waveforms are float32 in [-1, 1], mono, right-padded with zeros; lengths count samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class AudioBatch:
    """Utterances of different lengths with their texts.

    Shape: waveforms (B, T), lengths (B,) int64; texts and ids hold B strings.
    Units: waveforms in full-scale amplitude, lengths in samples.
    """

    waveforms: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"every field of a batch holds one entry per utterance, found {sizes}")

    def __len__(self) -> int:
        return len(self.ids)

    def replace(self, waveforms: Tensor, lengths: Tensor | None = None) -> AudioBatch:
        """The same utterances with other waveforms, and with other lengths where a transformation changed them.

        Shape: waveforms (B, T) as they are now; with ``lengths`` (B,), waveforms (B, T').
        """
        if lengths is None and waveforms.shape != self.waveforms.shape:
            raise ValueError(f"waveforms of shape {tuple(self.waveforms.shape)} replaced by {tuple(waveforms.shape)}")
        if lengths is not None and len(lengths) and int(lengths.max()) > waveforms.shape[1]:
            raise ValueError(f"lengths: up to {int(lengths.max())} samples, the waveforms hold {waveforms.shape[1]}")
        return replace(self, waveforms=waveforms, lengths=self.lengths if lengths is None else lengths)

    def select(self, indices: Sequence[int] | Tensor) -> Self:
        """The utterances at ``indices`` (or where a mask is True), padded no further than the longest of them needs."""
        rows = torch.as_tensor(indices)
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        lengths = self.lengths[rows.to(self.lengths.device)]
        longest = int(lengths.max()) if len(lengths) else 0
        picked = rows.tolist()

        def selected(value: Any) -> Any:
            if isinstance(value, Tensor):
                kept = value[rows.to(value.device)]
                return kept[:, :longest] if kept.dim() > 1 else kept
            return tuple(value[row] for row in picked)

        return replace(self, **{field.name: selected(getattr(self, field.name)) for field in fields(self)})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return self._each_tensor(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._each_tensor(Tensor.pin_memory)

    def _each_tensor(self, function: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if isinstance(value, Tensor)})


@dataclass(frozen=True)
class PairedBatch(AudioBatch):
    """Attacked utterances, with the same stretch of the audio that each was made from.

    Shape: clean (B, T), as waveforms.
    """

    clean: Tensor


class Targets(Protocol):
    """What a recogniser made of texts: opaque to everyone but that recogniser."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> Targets:
        """The targets at ``indices`` (num,)."""

    def repeat(self, num: int) -> Targets:
        """Every target ``num`` times in a row: a, a, b, b for num = 2."""


@dataclass(frozen=True)
class TokenTargets:
    """Token sequences, right-padded with zeros.

    Shape: tokens (B, U) int64, token_lengths (B,) int64.
    """

    tokens: Tensor
    token_lengths: Tensor

    def __len__(self) -> int:
        return len(self.token_lengths)

    def select(self, indices: Tensor) -> TokenTargets:
        token_lengths = self.token_lengths[indices]
        longest = int(token_lengths.max()) if len(token_lengths) else 0
        return TokenTargets(self.tokens[indices, :longest], token_lengths)

    def repeat(self, num: int) -> TokenTargets:
        return TokenTargets(self.tokens.repeat_interleave(num, 0), self.token_lengths.repeat_interleave(num, 0))


@dataclass(frozen=True)
class Emissions:
    """Frame-wise log-probabilities.

    Shape: log_probs (B, F, V), normalised over V; frame_lengths (B,) int64.
    """

    log_probs: Tensor
    frame_lengths: Tensor


@dataclass(frozen=True)
class Word:
    """A recognised word. Units: start and end in seconds; confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What a recogniser heard, and what a detector beside it says of the audio.

    Attributes:
        words: empty where the recogniser knows no word times.
        score: of a detector, higher where the audio is more likely adversarial; None where there is no detector.
        flagged: whether the detector calls the audio adversarial; what it flags has not been heard.
    """

    text: str
    words: tuple[Word, ...] = ()
    score: float | None = None
    flagged: bool = False


class Status(StrEnum):
    """What became of an utterance in an attack, as a row records it."""

    ATTACKED = "attacked"
    # Its audio or its text is such that the attack returned it as it came.
    REFUSED = "refused"
    # A gradient that was not finite ended the attack early.
    BROKEN_OFF = "broken off"
    # Every gradient was zero: the attack ran and never moved, which says nothing about robustness.
    MASKED_GRADIENT = "masked gradient"
