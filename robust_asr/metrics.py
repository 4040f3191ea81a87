"""Word and character error rates, counted in one place for training, evaluation and attacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics import Metric

from robust_asr.text import normalize

Count = TypeVar("Count", int, Tensor)
_COUNTS = (
    "utterances",
    "empty_hypotheses",
    "insertions",
    "deletions",
    "substitutions",
    "capped_errors",
    "reference_words",
    "character_errors",
    "reference_characters",
)


class ErrorRates(Metric):
    """Error rates over a set: all edits over all reference words, so that long utterances weigh more.

    The states are integer counts, summed over ranks: one process and many give the same rates. ``compute`` returns
    fractions ``wer``, ``cer``, ``insertions``, ``deletions``, ``substitutions`` (of the reference words),
    ``wer_capped`` (no utterance counts more errors than it has words) and ``empty_hypotheses`` (of the utterances), and
    the counts ``reference_words``, ``reference_characters`` and ``utterances``. Where no reference has a word, a rate
    is 1 if there are errors, else 0; nan before the first utterance.
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        for name in _COUNTS:
            self.add_state(f"num_{name}", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        for name, count in count_errors(references, hypotheses).items():
            setattr(self, f"num_{name}", getattr(self, f"num_{name}") + count)

    def compute(self) -> dict[str, Tensor]:
        count = {name: getattr(self, f"num_{name}") for name in _COUNTS}
        errors, words = word_edits(count), count["reference_words"]
        rates = {
            "wer": _rate(errors, words),
            "cer": _rate(count["character_errors"], count["reference_characters"]),
            "insertions": _rate(count["insertions"], words),
            "deletions": _rate(count["deletions"], words),
            "substitutions": _rate(count["substitutions"], words),
            "wer_capped": _rate(count["capped_errors"], words),
            "empty_hypotheses": _rate(count["empty_hypotheses"], count["utterances"]),
        }
        if count["utterances"] == 0:
            rates = {name: torch.full_like(rate, torch.nan) for name, rate in rates.items()}
        counts = ("reference_words", "reference_characters", "utterances")
        return rates | {name: count[name].clone() for name in counts}


def count_errors(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, int]:
    """Integer counts over a list of utterances, texts normalised as everywhere.

    Errors: ValueError if the lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references and hypotheses must be as many, found {len(references)} references and {len(hypotheses)} hypotheses"
        )
    if not references:
        return dict.fromkeys(_COUNTS, 0)
    counted = [utterance_errors(*texts) for texts in zip(references, hypotheses, strict=True)]
    return {
        "utterances": len(counted),
        "empty_hypotheses": sum(not normalize(hypothesis) for hypothesis in hypotheses),
        "insertions": sum(errors.insertions for errors in counted),
        "deletions": sum(errors.deletions for errors in counted),
        "substitutions": sum(errors.substitutions for errors in counted),
        "capped_errors": sum(min(word_edits(errors._asdict()), errors.words) for errors in counted),
        "reference_words": sum(errors.words for errors in counted),
        "character_errors": sum(errors.character_errors for errors in counted),
        "reference_characters": sum(errors.characters for errors in counted),
    }


class UtteranceErrors(NamedTuple):
    """The edits that turn a reference into a hypothesis, the fewest in words, and the words and characters of the reference."""

    words: int
    insertions: int
    deletions: int
    substitutions: int
    character_errors: int
    characters: int


def utterance_errors(reference: str, hypothesis: str) -> UtteranceErrors:
    """The counts of one utterance, texts normalised as everywhere."""
    reference, hypothesis = normalize(reference), normalize(hypothesis)
    words = reference.split()
    edits = [kind for kind, _, _ in Levenshtein.editops(words, hypothesis.split()).as_list()]
    return UtteranceErrors(
        words=len(words),
        insertions=edits.count("insert"),
        deletions=edits.count("delete"),
        substitutions=edits.count("replace"),
        character_errors=Levenshtein.distance(reference, hypothesis),
        characters=len(reference),
    )


def word_edits(counts: Mapping[str, Count]) -> Count:
    """Insertions, deletions and substitutions together; ``counts`` are those of ``count_errors``, a row, or tensors."""
    return counts["insertions"] + counts["deletions"] + counts["substitutions"]


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Word edits and reference words of one utterance."""
    errors = utterance_errors(reference, hypothesis)
    return word_edits(errors._asdict()), errors.words


def snr_db(clean: Tensor, perturbed: Tensor) -> float:
    """Signal-to-noise ratio of one perturbed utterance; inf where nothing was changed, nan where it is not defined.

    Shape: both (T,), without padding. Units: dB.
    """
    clean, noise = clean.double(), perturbed.double() - clean.double()
    ratio = clean.norm() / noise.norm()
    return (
        20 * math.log10(float(ratio))
        if bool(ratio.isfinite()) and ratio > 0
        else float(ratio)
        if ratio > 0
        else math.nan
    )


def _rate(errors: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, errors.double() / total.clamp(min=1), (errors > 0).double())
