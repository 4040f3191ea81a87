"""Shallow fusion: a language model beside what writes token by token (Gulcehre et al. 2015).

Legend: N hypotheses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_asr.search.base import Search
from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.search.writing import check_is_file
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


class FusedSearch(Search):
    """A search that a language model may take part in.

    ``language_model`` is the path of a checkpoint that ``lightning_modules.language_model`` wrote; it is read at the first call,
    and is no part of a pickle or a copy.

    Errors: FileNotFoundError; ValueError for a weight out of range, or for a language model of other tokens.
    """

    file_arguments = ("language_model",)

    def __init__(self, language_model: str | None, language_model_weight: float) -> None:
        require_not_negative(language_model_weight=language_model_weight)
        if (language_model is None) is not (language_model_weight == 0):
            raise ValueError(
                f"language_model {language_model} with language_model_weight {language_model_weight}: give both or none"
            )
        check_is_file(language_model, type(self).__name__)
        self.language_model = language_model
        self.language_model_weight = language_model_weight
        self._read: tuple[Tokenizer, LanguageModel] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": None}

    def fused(self, tokenizer: Tokenizer, device: torch.device) -> LanguageModel | None:
        """The language model on a device; None without one."""
        if self.language_model is None:
            return None
        if self._read is None or self._read[0] is not tokenizer:
            self._read = tokenizer, read_language_model(self.language_model, tokenizer)
        return self._read[1].to(device)


def require_not_negative(**values: float) -> None:
    """ValueError for a value with which a search would not know when no hypothesis can become better."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, found {value}")


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
