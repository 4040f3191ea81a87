"""Votes over what a random recogniser hears in one utterance, draw by draw (Olivier & Raj 2021, section 4.2).

Legend: B utterances, T samples, N draws of an utterance, F frames, V labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from robust_asr.defenses.rover import Rule, rover
from robust_asr.models.base import LabelRecognizer, Recognizer
from robust_asr.types import Emissions, Transcript

Averaged = Literal["probabilities", "log_probabilities"]


class Vote(ABC):
    """How transcripts of several draws become one.

    Attributes:
        num: the draws of each utterance.
        name: as in the papers' tables, without the number.
    """

    name: str

    def __init__(self, num: int) -> None:
        if num < 2:
            raise ValueError(
                f"num is {num}: {type(self).__name__} needs two draws at least; without a vote one is heard"
            )
        self.num = num

    def require(self, recognizer: Recognizer) -> None:  # noqa: B027
        """Errors: ValueError for a recogniser whose draws this vote cannot count."""

    @abstractmethod
    def __call__(
        self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, seeds: Tensor, *, at_once: int
    ) -> list[Transcript]:
        """The transcript of each utterance.

        Shape: waveforms (B, T), lengths (B,), seeds (B, N) -> B transcripts; ``at_once`` of the B N copies are passed at once.
        """


class TranscriptVote(Vote):
    """A vote over transcripts, whatever the recogniser is."""

    @abstractmethod
    def choose(self, heard: Sequence[Transcript]) -> Transcript:
        """One transcript for those of the N draws."""

    def __call__(
        self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, seeds: Tensor, *, at_once: int
    ) -> list[Transcript]:
        heard = [
            transcript
            for rows, keyed in _pieces(seeds, at_once)
            for transcript in recognizer.transcribe(waveforms[rows], lengths[rows], seeds=keyed)
        ]
        return [self.choose(heard[first : first + self.num]) for first in range(0, len(heard), self.num)]


class Majority(TranscriptVote):
    """The text that most draws have; of equally many the one that was drawn first."""

    name = "Maj"

    def choose(self, heard: Sequence[Transcript]) -> Transcript:
        (text, _), *_ = Counter(transcript.text for transcript in heard).most_common()
        return next(transcript for transcript in heard if transcript.text == text)


class Rover(TranscriptVote):
    """Word by word (``robust_asr.defenses.rover.rover``).

    Where all transcripts have word times, they are cut at silences in common, as Olivier & Raj 2021 did with frames of 20 ms. The
    words of the result have no times.

    Args:
        frequency_weight, rule, null_confidence: as of ``rover``; the paper's votes count words and no confidences.
        min_gap: the silence in common at which transcripts are cut.

    Units: min_gap in seconds.
    """

    name = "ROVER"

    def __init__(
        self,
        num: int = 16,
        *,
        frequency_weight: float = 1.0,
        rule: Rule = "average",
        null_confidence: float = 0.0,
        min_gap: float = 0.02,
    ) -> None:
        super().__init__(num)
        self.frequency_weight = frequency_weight
        self.rule: Rule = rule
        self.null_confidence = null_confidence
        self.min_gap = min_gap
        # Wrong settings are named now, and not at the first utterance.
        self.choose([Transcript("")] * num)

    def choose(self, heard: Sequence[Transcript]) -> Transcript:
        timed = all([word.text for word in one.words] == one.text.split() for one in heard)
        words = rover(
            [one.text.split() for one in heard],
            [[(word.start, word.end) for word in one.words] for one in heard] if timed else None,
            [[word.confidence for word in one.words] for one in heard] if timed else None,
            frequency_weight=self.frequency_weight,
            rule=self.rule,
            null_confidence=self.null_confidence,
            min_gap=self.min_gap,
        )
        return Transcript(" ".join(words))


class Averaging(Vote):
    """The transcript of the mean over the draws, frame by frame and label by label.

    Olivier & Raj 2021 write of logits; their code averages the probabilities.

    Args:
        averaged: ``probabilities``, as their code, or ``log_probabilities``, which is the mean of the logits.
    """

    name = "Avg"

    def __init__(self, num: int = 16, *, averaged: Averaged = "probabilities") -> None:
        super().__init__(num)
        if averaged not in get_args(Averaged):
            raise ValueError(f"averaged is {averaged!r}, accepted are {' and '.join(get_args(Averaged))}")
        self.averaged: Averaged = averaged

    def require(self, recognizer: Recognizer) -> None:
        labels = isinstance(recognizer.innermost, LabelRecognizer)
        if not labels or not all(hasattr(layer, "emissions") for layer in recognizer.layers):
            name = type(recognizer.innermost).__name__
            raise ValueError(
                f"vote: Averaging needs probabilities of labels in every frame, which {name} has not: use Rover"
            )

    def __call__(
        self, recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, seeds: Tensor, *, at_once: int
    ) -> list[Transcript]:
        total: Tensor | float = 0.0
        frame_lengths = lengths
        for rows, keyed in _pieces(seeds, at_once):
            found = recognizer.emissions(waveforms[rows], lengths[rows], seeds=keyed)
            scores = found.log_probs.double()
            scores = scores.exp() if self.averaged == "probabilities" else scores
            sums = scores.new_zeros(len(waveforms), *scores.shape[1:]).index_add_(0, rows.to(scores.device), scores)
            total = total + sums
            frame_lengths = frame_lengths.index_copy(0, rows.to(frame_lengths.device), found.frame_lengths)
        mean = (total / self.num).log() if self.averaged == "probabilities" else (total / self.num).log_softmax(-1)
        emissions = Emissions(mean.float(), frame_lengths)
        return recognizer.search(emissions, recognizer.tokenizer, frame_shift=recognizer.frame_shift)


def _pieces(seeds: Tensor, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The utterances of the copies that are passed together, and their seeds. Shape: (B, N) -> (M,), (M,)."""
    owners = torch.arange(seeds.numel()) // seeds.shape[1]
    yield from zip(owners.split(at_once), seeds.flatten().split(at_once), strict=True)
