"""What a row and a description of an evaluation hold, and the first field that is not so: they may be a stranger's files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

KEY = ("system", "condition", "part", "id")
_TEXTS = frozenset({*KEY, "reference", "hypothesis"})
_COUNTS = frozenset(
    {"words", "insertions", "deletions", "substitutions", "characters", "character_errors", "iterations", "forwards"}
)
_NUMBERS = frozenset({"audio_seconds", "seconds"})
# What a row may lack, or hold null for.
_OPTIONAL_TEXTS = frozenset({"target", "note"})
_OPTIONAL_NUMBERS = frozenset({"snr_db", "loss", "size"})
_OPTIONAL = _OPTIONAL_TEXTS | _OPTIONAL_NUMBERS | {"success"}
_TARGET_COUNTS = frozenset({"target_errors", "target_words"})
# A larger count is not its own float; a sum of larger numbers may not be finite.
_COUNTS_BELOW = 2**53
_NUMBERS_BELOW = 1e300


def wrong_row(row: Any) -> str:
    """What is wrong with a row in one sentence that names the field, "" if nothing is."""
    if not isinstance(row, dict):
        return f"it holds a {type(row).__name__}"
    present = {name for name in _OPTIONAL if row.get(name) is not None}
    kinds: list[tuple[set[str] | frozenset[str], Callable[[Any], bool], str]] = [
        (_TEXTS | present & _OPTIONAL_TEXTS, _is_text, "a text"),
        (_COUNTS | _TARGET_COUNTS if "target" in present else _COUNTS, _is_count, "a count"),
        (_NUMBERS | present & _OPTIONAL_NUMBERS, _is_number, "a number"),
        (present & {"success"}, lambda value: isinstance(value, bool), "true or false"),
        ({"hashes"}, lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "a map of texts"),
    ]
    for names, fits, what in kinds:
        for name in sorted(names):
            if not fits(row.get(name)):
                return f"field {name!r} must be {what}, found {str(row.get(name))[:40]!r}"
    return ""


def wrong_description(content: dict[str, Any]) -> str:
    """What is wrong with ``evaluation.json`` in one sentence that names the field, "" if nothing is."""
    kinds = {"hash": _is_text, "columns": _is_columns, "num_utterances": _is_count}
    for name, fields in (
        ("systems", ("hash", "columns")),
        ("conditions", ("hash", "columns")),
        ("parts", ("num_utterances",)),
    ):
        entries = content.get(name)
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) and all(kinds[field](entry.get(field)) for field in fields)
            for entry in entries.values()
        ):
            return f"field {name!r} must map names to {', '.join(fields)}"
    return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_columns(value: Any) -> bool:
    return isinstance(value, dict) and all(
        cell is None or isinstance(cell, str | bool) or _is_number(cell) for cell in value.values()
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNTS_BELOW


def _is_number(value: Any) -> bool:
    # An exponent such as 1e999 reads as infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NUMBERS_BELOW
