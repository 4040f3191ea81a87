"""A recogniser around another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from robust_asr.models.base import Recognizer
from robust_asr.search.base import Search
from robust_asr.text import Tokenizer
from robust_asr.types import Targets


class Wrapper(Recognizer):
    """Says of itself what the recogniser inside says. A subclass writes ``loss`` and ``transcribe``, and what it changes.

    Attributes:
        recognizer: the one inside. A subclass sets it where it belongs among its modules, whose order optimisers count by.

    Errors: AttributeError for a property that the recogniser inside does not have.
    """

    recognizer: Recognizer

    @property
    def inside(self) -> Recognizer:
        return self.recognizer

    @property
    def stochastic(self) -> bool:
        return self.recognizer.stochastic

    @property
    def sample_rate(self) -> int:
        return self.recognizer.sample_rate

    @property
    def padding_invariant(self) -> bool:
        return self.recognizer.padding_invariant

    @property
    def forwards_per_transcript(self) -> int:
        return self.recognizer.forwards_per_transcript

    @property
    def tokenizer(self) -> Tokenizer:
        return self.recognizer.tokenizer

    @property
    def frame_shift(self) -> float:
        return self.recognizer.frame_shift

    @property
    def search(self) -> Search | None:
        return self.recognizer.search

    def use_search(self, search: Search) -> None:
        self.recognizer.use_search(search)

    def prepare(self, texts: Iterable[str]) -> None:
        self.recognizer.prepare(texts)

    def window(self, lengths: Tensor) -> Tensor:
        return self.recognizer.window(lengths)

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.feasible(lengths, targets)
