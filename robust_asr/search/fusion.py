"""Shallow fusion: a language model beside what writes token by token (Gulcehre et al. 2015).

Legend: N hypotheses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.storage.describe import describe
from robust_asr.storage.parts import load_part
from robust_asr.text import Tokenizer

# Tokens (N,) and a state -> log-probabilities of the next token (N, V), and the state after the tokens. ``state[rows]`` are the
# states of the hypotheses ``rows`` (N,).
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


def read_language_model(path: str, tokenizer: Tokenizer) -> LanguageModel:
    """The language model of a checkpoint of ``lightning_modules.language_model``, in evaluation mode.

    Errors: as ``robust_asr.storage.parts.load_part``; ValueError if its tokens are not those of the tokenizer.
    """
    model = load_part(path, LANGUAGE_MODEL, LanguageModel)
    if describe(model.tokenizer) != describe(tokenizer):
        known, asked = (f"{type(one).__name__} of {one.size} ids" for one in (model.tokenizer, tokenizer))
        raise ValueError(f"language_model {path} knows the tokens of a {known}, the recogniser those of a {asked}")
    return model


class BothStates(tuple):
    """The states of two models; ``states[rows]`` takes the rows of both."""

    def __getitem__(self, rows: Tensor) -> BothStates:
        return BothStates(state[rows] for state in self)


@dataclass(frozen=True)
class Fused:
    """log p(token | tokens before, audio) + weight log p(token | tokens before), as one step."""

    heard: Step
    expected: Step
    weight: float

    def __call__(self, tokens: Tensor, states: BothStates) -> tuple[Tensor, BothStates]:
        heard_state, expected_state = states
        heard, heard_state = self.heard(tokens, heard_state)
        expected, expected_state = self.expected(tokens, expected_state)
        return heard + self.weight * expected, BothStates((heard_state, expected_state))
