"""What a recogniser is: the contract that training, attacks, defences and evaluation are written against.

Legend: B utterances, T samples, F frames, D hidden units, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_asr.losses import ctc_frames_needed, ctc_loss
from robust_asr.search.greedy import Decoder, GreedySearch
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import Emissions, Targets, TokenTargets, Transcript


class Recognizer(nn.Module, ABC):
    """Anything that takes waveforms and says what the loss of a text is and what it hears.

    Every method treats each utterance alone: its result does not depend on its neighbours or on the padding. Constructor
    arguments are kept as attributes of the same name, so that a checkpoint can describe the architecture
    (``robust_asr.storage.describe.describe``).

    Attributes:
        sample_rate: in hertz, of the waveforms it takes.
        padding_invariant: False where padding changes the result; such a model is attacked and evaluated alone or in equal
            lengths.
        stochastic: whether two calls with other seeds may differ. Where it is False one draw says all, and attacks take no more;
            a model says so of itself, since an attack that takes one draw of a random model is too weak.
    """

    sample_rate: int = 16_000
    padding_invariant: bool = True
    stochastic: bool = True

    @abstractmethod
    def targets(self, texts: Sequence[str]) -> Targets:
        """Texts as this recogniser writes them. ValueError names a text that it cannot write."""

    @abstractmethod
    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        """Whether the audio is long enough to carry the text. Shape: (B,) samples -> (B,) bool."""

    @abstractmethod
    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each text, differentiable in the waveforms, never reduced.

        Infinite, with zero gradient, where the target is not feasible.

        Shape: waveforms (B, T), lengths (B,), seeds (B,) int64 -> (B,).
        Units: nats.
        """

    @abstractmethod
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        """What is heard. Shape: waveforms (B, T), lengths (B,) -> B transcripts."""


class FrameSynchronous(Recognizer):
    """A recogniser that answers frame by frame."""

    @abstractmethod
    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        """Shape: waveforms (B, T), lengths (B,) -> log_probs (B, F, V), frame_lengths (B,)."""


class Encoded(Recognizer):
    """A recogniser whose encoder can be used apart from its loss."""

    @abstractmethod
    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Shape: waveforms (B, T), lengths (B,) -> hidden (B, F, D), frame_lengths (B,)."""

    @abstractmethod
    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: Targets) -> Tensor:
        """Shape: hidden (B, F, D), frame_lengths (B,) -> (B,) nats."""


class CTCRecognizer(FrameSynchronous, Encoded):
    """Encoder, linear head, CTC (Graves et al. 2006). A subclass writes ``encode`` and ``num_frames`` and sets ``head``.

    Attributes:
        frame_shift: seconds between frames, for word times.
        head: module from hidden (B, F, D) to scores (B, F, V).
    """

    frame_shift: float
    head: nn.Module

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer if tokenizer is not None else CharacterTokenizer()
        # Not an argument: how to search is a choice of the evaluation, no part of the architecture that a checkpoint keeps.
        self.decoder: Decoder = GreedySearch()

    @abstractmethod
    def num_frames(self, lengths: Tensor) -> Tensor:
        """Frames that ``encode`` returns for these lengths. Shape: (B,) samples -> (B,) frames."""

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return ctc_frames_needed(targets).to(lengths.device) <= self.num_frames(lengths)

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        hidden, frame_lengths = self.encode(waveforms, lengths, seeds=seeds)
        return Emissions(self.head(hidden).float().log_softmax(-1), frame_lengths)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: TokenTargets, *, seeds: Tensor | None = None) -> Tensor:
        hidden, frame_lengths = self.encode(waveforms, lengths, seeds=seeds)
        return self.loss_from_hidden(hidden, frame_lengths, targets)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        scores = self.head(hidden)
        # float32 at least: the recursion of CTC loses a long utterance in half precision.
        log_probs = (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)
        return ctc_loss(log_probs, frame_lengths, targets, blank=self.tokenizer.blank)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        with torch.no_grad():
            emissions = self.emissions(waveforms, lengths, seeds=seeds)
        return self.decoder(emissions, self.tokenizer, frame_shift=self.frame_shift)
