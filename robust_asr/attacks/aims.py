"""What an objective makes of a batch: the value of each utterance that an attack raises.

Legend: B utterances, T samples, F frames, D hidden units, U tokens of a text and its end, V labels or tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robust_asr.masking import length_mask
from robust_asr.models.base import Encoded, FrameSynchronous, Recognizer
from robust_asr.models.token_synchronous import TokenSynchronous
from robust_asr.types import Emissions, Targets, Transcript

# The margin by which a frame or a token is lost, in nats.
_ENOUGH = 1.0


class Aim(ABC):
    """An objective for the utterances of a batch: ``Targets`` that know what is to be raised."""

    def passes(self, recognizer: Recognizer) -> int:
        """The passes of one utterance through the recogniser in ``values``."""
        return 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def select(self, indices: Tensor) -> Aim: ...

    @abstractmethod
    def repeat(self, num: int) -> Aim: ...

    @abstractmethod
    def of_audio(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        """The value of each utterance, the higher, the better for the attacker. Shape: (B, T), (B,), (B,) -> (B,)."""

    @abstractmethod
    def of_hidden(self, recognizer: Encoded, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        """The same from hidden units. Shape: (B, F, D), (B,) -> (B,)."""

    def values(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        """The value of each utterance, from one pass through the recogniser where it has an encoder. Shape: -> (B,)."""
        if has_encoder(recognizer):
            return self.of_hidden(recognizer, *recognizer.encode(waveforms, lengths, seeds=seeds))
        return self.of_audio(recognizer, waveforms, lengths, seeds=seeds)

    def values_and_transcripts(
        self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor
    ) -> tuple[Tensor, list[Transcript]]:
        """``values`` and the transcripts on the same draws, in one pass where the recogniser has an encoder."""
        if has_encoder(recognizer):
            hidden, frame_lengths = recognizer.encode(waveforms, lengths, seeds=seeds)
            with torch.no_grad():
                heard = recognizer.transcribe_hidden(hidden.detach(), frame_lengths)
            return self.of_hidden(recognizer, hidden, frame_lengths), heard
        values = self.of_audio(recognizer, waveforms, lengths, seeds=seeds)
        with torch.no_grad():
            return values, recognizer.transcribe(waveforms, lengths, seeds=seeds)


@dataclass(frozen=True)
class OfTexts(Aim):
    """An aim at given texts."""

    targets: Targets

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, indices: Tensor) -> Aim:
        return replace(self, targets=self.targets.select(indices))

    def repeat(self, num: int) -> Aim:
        return replace(self, targets=self.targets.repeat(num))


@dataclass(frozen=True)
class LossOf(OfTexts):
    """The loss of given texts, times ``sign``."""

    sign: int

    def of_audio(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        return self.sign * recognizer.loss(waveforms, lengths, self.targets, seeds=seeds)

    def of_hidden(self, recognizer: Encoded, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        return self.sign * recognizer.loss_from_hidden(hidden, frame_lengths, self.targets)

    def values(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        return self.of_audio(recognizer, waveforms, lengths, seeds=seeds)

    def values_and_transcripts(
        self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor
    ) -> tuple[Tensor, list[Transcript]]:
        losses, heard = recognizer.loss_and_transcripts(waveforms, lengths, self.targets, seeds=seeds)
        return self.sign * losses, heard


@dataclass(frozen=True)
class Margins(Aim):
    """Shape: labels (B, F) int64, frame_lengths (B,)."""

    labels: Tensor
    frame_lengths: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> Aim:
        rows = indices.to(self.labels.device)
        return replace(self, labels=self.labels[rows], frame_lengths=self.frame_lengths[rows])

    def repeat(self, num: int) -> Aim:
        return replace(
            self,
            labels=self.labels.repeat_interleave(num, 0),
            frame_lengths=self.frame_lengths.repeat_interleave(num, 0),
        )

    def of_audio(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        return self._of(recognizer.emissions(waveforms, lengths, seeds=seeds))

    def of_hidden(self, recognizer: Encoded, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        return self._of(Emissions(recognizer.innermost.log_probs(hidden), frame_lengths))

    def _of(self, emissions: Emissions) -> Tensor:
        scores = emissions.log_probs
        # The batch may have shrunk since, and with it the padding.
        return hinge_margins(scores, self.labels[:, : scores.shape[1]], emissions.frame_lengths)


class TokenMargins(OfTexts):
    """The margins of the tokens of given texts, which the decoder reads; for recognisers that ``has_tokens``."""

    def of_audio(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        return self.of_hidden(recognizer, *recognizer.encode(waveforms, lengths, seeds=seeds))

    def of_hidden(self, recognizer: Encoded, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        forced = recognizer.innermost.teacher_forced(hidden, frame_lengths, self.targets)
        return hinge_margins(forced.scores, forced.tokens, forced.lengths)


@dataclass(frozen=True)
class Sum(Aim):
    parts: tuple[Aim, ...]

    def passes(self, recognizer: Recognizer) -> int:
        return 1 if has_encoder(recognizer) else sum(part.passes(recognizer) for part in self.parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def select(self, indices: Tensor) -> Aim:
        return Sum(tuple(part.select(indices) for part in self.parts))

    def repeat(self, num: int) -> Aim:
        return Sum(tuple(part.repeat(num) for part in self.parts))

    def of_audio(self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> Tensor:
        return sum(part.of_audio(recognizer, waveforms, lengths, seeds=seeds) for part in self.parts)

    def of_hidden(self, recognizer: Encoded, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        return sum(part.of_hidden(recognizer, hidden, frame_lengths) for part in self.parts)


def hinge_margins(scores: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """The best score of another label minus that of the given one, up to a nat, summed over what is no padding.

    Shape: scores (B, N, V), labels (B, N), lengths (B,) -> (B,).
    """
    own = scores.gather(-1, labels[..., None])[..., 0]
    others = scores.scatter(-1, labels[..., None], -torch.inf).amax(-1)
    margins = (others - own).clamp(max=_ENOUGH)
    return (margins * length_mask(lengths, scores.shape[1])).sum(1)


def hands_out_frames(layer: Recognizer) -> bool:
    return hasattr(layer, "emissions") and isinstance(layer.innermost, FrameSynchronous)


def has_frames(recognizer: Recognizer) -> bool:
    """Whether a recogniser, its wrappers included, hands out the scores of labels in every frame."""
    return all(hands_out_frames(layer) for layer in recognizer.layers)


def has_encoder(recognizer: Recognizer) -> bool:
    """Whether a recogniser, its wrappers included, hands out hidden units, from which everything follows in one pass."""
    innermost = recognizer.innermost
    scored = hasattr(innermost, "log_probs") or not isinstance(innermost, FrameSynchronous)
    return isinstance(innermost, Encoded) and scored and all(hasattr(layer, "encode") for layer in recognizer.layers)


def has_tokens(recognizer: Recognizer) -> bool:
    """Whether a recogniser, its wrappers included, hands out hidden units, from which a decoder scores the tokens of a text."""
    return has_encoder(recognizer) and isinstance(recognizer.innermost, TokenSynchronous)
