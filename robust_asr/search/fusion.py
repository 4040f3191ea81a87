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


class States(tuple):
    """States that belong together; ``states[rows]`` takes the rows of each."""

    def __getitem__(self, rows: Any) -> Any:
        return super().__getitem__(rows) if isinstance(rows, int) else States(state[rows] for state in self)


@dataclass(frozen=True)
class Fused:
    """The weighted sum of the log-probabilities of several models, as one step; its states are a ``States`` of theirs."""

    steps: tuple[Step, ...]
    weights: tuple[float, ...]

    def __call__(self, tokens: Tensor, states: States) -> tuple[Tensor, States]:
        answers = [step(tokens, state) for step, state in zip(self.steps, states, strict=True)]
        scores = sum(weight * log_probs for weight, (log_probs, _) in zip(self.weights, answers, strict=True))
        return scores, States(state for _, state in answers)
