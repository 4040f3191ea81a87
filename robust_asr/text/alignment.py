"""Word alignment of a hypothesis to its reference: as columns, as fixed-width text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jiwer

from robust_asr.text import normalize
from robust_asr.text.terminal import printable

Operation = Literal["equal", "substitute", "delete", "insert"]
MARKS: dict[Operation, str] = {"equal": " ", "substitute": "S", "delete": "D", "insert": "I"}
_NAMES: dict[Operation, str] = {"substitute": "substituted", "delete": "deleted", "insert": "inserted"}

ALIGNMENT_CSS = """\
.alignment { display: flex; flex-wrap: wrap; gap: .3rem .45rem; line-height: 1.3; overflow-wrap: anywhere; }
.alignment .word { display: inline-flex; flex-direction: column; padding: .1rem .3rem; border-radius: .3rem; }
.alignment .word > * { min-height: 1.3em; text-decoration: none; }
.alignment .edit { background: var(--edit-background, #fdeaea); }
.alignment del { color: var(--muted, #5c6370); }
.alignment ins { color: var(--edit, #a4131f); font-weight: 600; }
.alignment sup { color: var(--edit, #a4131f); font-size: .65em; font-weight: 700; }
"""


@dataclass(frozen=True)
class AlignedWord:
    """One column of an alignment. ``reference`` is empty for an insertion, ``hypothesis`` for a deletion."""

    operation: Operation
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Alignment:
    """The columns of an alignment; the number of edits is the Levenshtein distance over words."""

    words: tuple[AlignedWord, ...]

    def __iter__(self) -> Iterator[AlignedWord]:
        return iter(self.words)

    def count(self, operation: Operation) -> int:
        return sum(word.operation == operation for word in self.words)

    @property
    def edits(self) -> int:
        return len(self.words) - self.count("equal")

    @property
    def num_reference_words(self) -> int:
        return len(self.words) - self.count("insert")

    @property
    def word_error_rate(self) -> float:
        """The number of edits per word of the reference; nan if the reference has no word."""
        return self.edits / self.num_reference_words if self.num_reference_words else math.nan


def align(reference: str, hypothesis: str) -> Alignment:
    """The word alignment of two texts with the fewest edits, both normalised as in the metrics."""
    reference, hypothesis = normalize(reference), normalize(hypothesis)
    output = jiwer.process_words(reference, hypothesis)
    words: list[AlignedWord] = []
    for chunk in output.alignments[0]:
        spoken = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        heard = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        for index in range(max(len(spoken), len(heard))):
            pair = [side[index] if side else "" for side in (spoken, heard)]
            words.append(AlignedWord(chunk.type, *pair))
    return Alignment(tuple(words))


def align_text(reference: str, hypothesis: str, *, width: int = 100) -> str:
    """The alignment as blocks of at most ``width`` characters: a line REF, a line HYP, and a mark S, D or I under each edit.

    Asterisks stand in the other line for a word that was inserted or deleted. A word longer than ``width`` gets its own block.
    """
    blocks: list[list[str]] = []
    for word in align(reference, hypothesis):
        size = max(len(word.reference), len(word.hypothesis))
        cells = [word.reference or "*" * size, word.hypothesis or "*" * size, MARKS[word.operation]]
        if not blocks or len(blocks[-1][0]) + 1 + size > width:
            blocks.append(["REF:", "HYP:", "    "])
        blocks[-1] = [f"{line} {cell:<{size}}" for line, cell in zip(blocks[-1], cells, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in block).rstrip() for block in blocks)


def align_html(reference: str, hypothesis: str) -> str:
    """The alignment as one HTML element of escaped spans, reference over hypothesis; ``ALIGNMENT_CSS`` is its style sheet."""
    return f'<div class="alignment">{" ".join(map(_word_html, align(reference, hypothesis)))}</div>'


def _word_html(word: AlignedWord) -> str:
    spoken, heard = (html.escape(printable(text)) for text in (word.reference, word.hypothesis))
    if word.operation == "equal":
        return f'<span class="word"><span>{spoken}</span></span>'
    mark = f"<sup>{MARKS[word.operation]}</sup>"
    return (
        f'<span class="word edit" title="{_NAMES[word.operation]}">'
        f"<del>{spoken or '&nbsp;'}</del><ins>{heard or '&nbsp;'}{mark}</ins></span>"
    )
