"""The values that data, recognisers and attacks exchange.

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
        """The same utterances with other waveforms, and with other lengths if a transformation changed the lengths.

        Shape: waveforms (B, T) like the present waveforms; with ``lengths`` (B,), waveforms (B, T').
        """
        if lengths is None and waveforms.shape != self.waveforms.shape:
            raise ValueError(f"waveforms of shape {tuple(self.waveforms.shape)} replaced by {tuple(waveforms.shape)}")
        if lengths is not None and len(lengths) and int(lengths.max()) > waveforms.shape[1]:
            raise ValueError(f"lengths: up to {int(lengths.max())} samples, the waveforms hold {waveforms.shape[1]}")
        return replace(self, waveforms=waveforms, lengths=self.lengths if lengths is None else lengths)

    def select(self, indices: Sequence[int] | Tensor) -> Self:
        """The utterances at ``indices`` (or where a mask is True), padded to the longest of them."""
        rows = torch.as_tensor(indices)
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        lengths = self.lengths[rows.to(self.lengths.device)]
        longest = int(lengths.max()) if len(lengths) else 0
        picked = rows.tolist()

        def selected(value: Any) -> Any:
            if isinstance(value, Tensor):
                remaining = value[rows.to(value.device)]
                return remaining[:, :longest] if remaining.dim() > 1 else remaining
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
    """Attacked utterances, together with the same section of the clean audio that each utterance was made from.

    Shape: clean (B, T), like waveforms.
    """

    clean: Tensor


def check_audio(waveforms: object, lengths: object) -> None:
    """Raise a ValueError unless these are tensors of shapes (B, T) and (B,), the lengths integers."""
    for name, value in (("waveforms", waveforms), ("lengths", lengths)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, found {type(value).__name__}")
    if waveforms.dim() != 2:
        raise ValueError(f"waveforms must be of shape (utterances, samples), found {tuple(waveforms.shape)}")
    if lengths.shape != waveforms.shape[:1] or lengths.dtype not in (torch.int64, torch.int32):
        kind = str(lengths.dtype).removeprefix("torch.")
        raise ValueError(
            f"lengths must be {len(waveforms)} integers, one for each utterance, found {kind} of shape {tuple(lengths.shape)}"
        )


class Targets(Protocol):
    """Texts in the form that a recogniser's loss needs, such as token ids. Only the recogniser that made them reads them."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> Targets:
        """The targets at ``indices`` (num,)."""

    def repeat(self, num: int) -> Targets:
        """Each target ``num`` times, next to each other: a, a, b, b for num = 2."""


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
    """The text that a recogniser heard, and the judgement of a detector on the audio, if there is a detector.

    Attributes:
        text: in the form in which the recogniser's texts are compared (``Recognizer.compared``).
        words: empty if the recogniser gives no word times.
        score: the score of a detector, higher if the audio is more likely adversarial; None without a detector.
        flagged: whether the detector calls the audio adversarial; the system does not act on the text of flagged audio.
        written: what the recogniser wrote, with case and punctuation, where ``text`` is another form of it; else "".
    """

    text: str
    words: tuple[Word, ...] = ()
    score: float | None = None
    flagged: bool = False
    written: str = ""


class Status(StrEnum):
    """The status of an utterance after an attack, as a row records it."""

    ATTACKED = "attacked"
    # The audio or the text of the utterance cannot be attacked, so the attack returned the utterance unchanged.
    REFUSED = "refused"
    # A gradient that was not finite ended the attack early, or the recogniser's scores of the attacked audio are not finite.
    BROKEN_OFF = "broken off"
    # Every gradient was zero, so the attack never changed the audio. This is no evidence of robustness.
    MASKED_GRADIENT = "masked gradient"


class Broken(StrEnum):
    """Where an utterance breaks, as a row of the breaking point records it: in the range that was searched, or outside of it."""

    WITHIN = "within the range"
    # Already the smallest budget breaks it, so the breaking point lies at or below that budget.
    SMALLEST = "at the smallest budget"
    # The goal is reached without any perturbation.
    UNPERTURBED = "unperturbed"
    # Not even the largest budget breaks it.
    BEYOND = "not broken"

    @property
    def below(self) -> bool:
        """Whether the breaking point lies below the range."""
        return self in (Broken.SMALLEST, Broken.UNPERTURBED)
