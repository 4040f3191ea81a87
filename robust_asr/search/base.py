"""What a search is: how a recogniser gets from what its network computes to a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript


class Search(ABC):  # noqa: B024 - each kind has its own call
    """A value: constructor arguments are kept as attributes of the same name, and are part of what a system is.

    What a search is given depends on the recogniser, so each kind has its own call: frames of labels (``FrameSearch``), a
    lattice, or the step of an autoregressive decoder. ``Recognizer.use_search`` refuses a search of a kind that the recogniser
    cannot serve. A search is no part of a checkpoint: how to search is a choice of the evaluation.

    Attributes:
        file_arguments: names of the arguments that are paths; the content of these files is part of what a system is.
    """

    file_arguments: ClassVar[tuple[str, ...]] = ()

    def words(self, tokenizer: Tokenizer) -> list[str]:
        """The only words that the search writes; empty for a search that writes any."""
        return []


class FrameSearch(Search):
    """Turns log-probabilities of labels, frame by frame, into transcripts."""

    @abstractmethod
    def __call__(self, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
        """Shape: log_probs (B, F, V) -> B transcripts. Units: frame_shift in seconds."""
