"""The worst utterances of a cell: those with most errors to a word. Their audio is kept, and the report shows them."""

from __future__ import annotations

from collections.abc import Iterable

from robust_asr.metrics import word_edits
from robust_asr.results import Row


def worst_first(row: Row) -> tuple[float, int, str]:
    """The key of the order: errors to a word, then errors, then the id."""
    edits = word_edits(row)
    return -edits / max(row["words"], 1), -edits, row["id"]


def worst_rows(rows: Iterable[Row], *, keep: int) -> list[Row]:
    """The ``keep`` worst rows; a row without errors is none of them."""
    return [row for row in sorted(rows, key=worst_first)[:keep] if word_edits(row)]
