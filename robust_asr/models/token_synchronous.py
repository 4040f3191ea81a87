"""The contract of a recogniser that writes token by token: an encoder-decoder or a transducer.

Legend: B utterances, F frames, D hidden units, U tokens of a text and its end, or a transducer's steps; V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from robust_asr.models.base import Encoded
from robust_asr.types import Targets


@dataclass(frozen=True)
class TokenScores:
    """What a decoder says of each token of a text, after the tokens before it.

    A transducer also chooses to go on to the next frame, which is a token here, the blank.

    Shape: scores (B, U, V); tokens (B, U) int64, the text's own; lengths (B,) int64, of which the end of the text is one.
    Units: nats, up to a constant at each token; -inf for a token that the search never writes there.
    """

    scores: Tensor
    tokens: Tensor
    lengths: Tensor


class TokenSynchronous(Encoded):
    """A recogniser with a distribution over the next token, given the audio and the tokens before it."""

    @abstractmethod
    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: Targets) -> TokenScores:
        """The scores at each token of given texts, differentiable in the hidden units; the decoder reads the true tokens.

        Shape: hidden (B, F, D), frame_lengths (B,) -> tokens and scores of B texts.
        """
