"""Which fields a row and a description of an evaluation hold, and the first field that breaks this: files may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from robust_asr.types import Broken, Status

KEY = ("system", "condition", "part", "id")
_TEXTS = frozenset({*KEY, "reference", "hypothesis"})
_COUNTS = frozenset(
    {"words", "insertions", "deletions", "substitutions", "characters", "character_errors", "iterations", "forwards"}
)
_NUMBERS = frozenset({"audio_seconds", "seconds"})
# A row may lack these fields, or hold null in them. ``paid_by`` names the system whose attack was shared,
# ``member`` the attack of an ensemble that won; ``score`` and ``flagged`` are a detector's; those of a breaking point begin with
# its name (``robust_asr.attacks.breaking``). What a recogniser wrote, and texts as it compares them, where they are others
# (``results.compared``). ``climbed`` is the text that an untargeted attack climbed away from (``robust_asr.attacks.goals``).
_OPTIONAL_TEXTS = frozenset(
    {"target", "note", "paid_by", "member", "breaking", "written", "compared_reference", "compared_target", "climbed"}
)
_OPTIONAL_NUMBERS = frozenset(
    {"snr_db", "loss", "size", "changed_samples", "masking_excess", "score", "breaking_snr_db"}
)
_OPTIONAL_FLAGS = frozenset({"success", "flagged"})
_OPTIONAL = _OPTIONAL_TEXTS | _OPTIONAL_NUMBERS | _OPTIONAL_FLAGS
_STATUSES = tuple(status.value for status in Status)
_BREAKS = tuple(broken.value for broken in Broken)
_TARGET_COUNTS = frozenset({"target_errors", "target_words"})
# Counting the errors of a text takes time that grows with its square; an hour of speech has 50,000 characters.
_CHARACTERS = 100_000
# A larger count is not its own float; a sum of larger numbers may not be finite.
_COUNTS_BELOW = 2**53
_NUMBERS_BELOW = 1e300
# A plot has a tick every ten decibels; float32 audio holds less than twice this ratio.
_DECIBELS = 1000


def wrong_row(row: Any) -> str:
    """The defect of a row in one sentence that names the field, "" where it has none."""
    if not isinstance(row, dict):
        return f"it holds a {type(row).__name__}"
    present = {name for name in _OPTIONAL if row.get(name) is not None}
    kinds: list[tuple[set[str] | frozenset[str], Callable[[Any], bool], str]] = [
        (_TEXTS | present & _OPTIONAL_TEXTS, _is_text, "a text"),
        (_COUNTS | _TARGET_COUNTS if "target" in present else _COUNTS, _is_count, "a count"),
        (_NUMBERS | present & _OPTIONAL_NUMBERS, _is_number, "a number"),
        (present & _OPTIONAL_FLAGS, lambda value: isinstance(value, bool), "true or false"),
        ({"status"}, lambda value: _is_text(value) and value in _STATUSES, f"one of {', '.join(_STATUSES)}"),
        ({"breaking"} & present, lambda value: value in _BREAKS, f"one of {', '.join(_BREAKS)}"),
        ({"breaking_amplitude"} if "breaking" in present else set(), _is_amplitude, "a positive amplitude"),
        ({"breaking_snr_db"} & present, _is_ratio, f"a number of at most {_DECIBELS} dB"),
        ({"budgets_tried"} if "breaking" in present else set(), _is_count, "a count"),
        ({"hashes"}, lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "a map of texts"),
    ]
    for names, fits, what in kinds:
        for name in sorted(names):
            if not fits(row.get(name)):
                return f"field {name!r} must be {what}, found {str(row.get(name))[:40]!r}"
    for name in sorted(_TEXTS | present & _OPTIONAL_TEXTS):
        if len(row[name]) > _CHARACTERS:
            return f"field {name!r} must have at most {_CHARACTERS} characters, found {len(row[name])}"
    return ""


def wrong_description(content: dict[str, Any]) -> str:
    """The defect of ``evaluation.json`` in one sentence that names the field, "" where it has none."""
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
    for name, about in content["systems"].items():
        if not _is_count(about.get("forwards_per_transcript", 1)):
            return f"field 'systems': forwards_per_transcript of {name!r} must be a count"
    return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_columns(value: Any) -> bool:
    return isinstance(value, dict) and all(
        cell is None or isinstance(cell, str | bool) or _is_number(cell) for cell in value.values()
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNTS_BELOW


def _is_amplitude(value: Any) -> bool:
    return _is_number(value) and value > 0 and abs(math.log10(value)) <= _DECIBELS / 20


def _is_ratio(value: Any) -> bool:
    return _is_number(value) and abs(value) <= _DECIBELS


def _is_number(value: Any) -> bool:
    # An exponent such as 1e999 reads as infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NUMBERS_BELOW
