"""Descriptions and hashes of systems and conditions: weights, settings, and the files that they were built from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robust_asr.attacks.base import Attack
from robust_asr.checkpoint import weights_hash
from robust_asr.models.base import Recognizer
from robust_asr.results import digest
from robust_asr.storage.describe import describe, files_of


def describe_system(recognizer: Recognizer) -> dict[str, Any]:
    """Describe a system: its ``hash``, its ``columns`` in the papers' tables, its ``description`` as plain data, and its cost.

    Two systems have the same hash only if weights, settings, search and files are equal, so rows of different systems are never
    mixed.
    """
    description = {
        "recognizer": describe(recognizer),
        "search": describe(recognizer.search),
        "weights": weights_hash(recognizer),
        "files": _hashes({*files_of(recognizer), *files_of(recognizer.search)}),
    }
    cost = {"forwards_per_transcript": recognizer.forwards_per_transcript}
    return {"hash": digest(description), "columns": recognizer.columns(), **cost, "description": description}


def describe_condition(attack: Attack, *, seed: int) -> dict[str, Any]:
    """Describe an attack like ``describe_system``. The seed enters the hash, because another seed gives other results."""
    description = describe(attack)
    return {"hash": digest([description, seed]), "columns": attack.columns(), "description": description}


def gradient_sources(
    systems: Iterable[tuple[str, Recognizer]], conditions: Mapping[str, Attack]
) -> dict[tuple[str, str], str | None]:
    """(system, condition) -> a hash of the attacker's view of the system. Systems with equal hashes get the same attacked audio.

    The hash is None if the view cannot be described; then the attacked audio is not shared with any other system.

    Errors: ValueError if a system has no view for the attack's knowledge, such as a straight-through form that does not exist.
    """
    sources: dict[tuple[str, str], str | None] = {}
    for system, recognizer in systems:
        # The weights are hashed once for each value of ``knowledge``, not once for each condition.
        known: dict[str, str | None] = {}
        for condition, attack in conditions.items():
            usual = type(attack).attackers_view is Attack.attackers_view
            if not usual or attack.knowledge not in known:
                source = _source(attack.attackers_view(recognizer))
                known |= {attack.knowledge: source} if usual else {}
            sources[system, condition] = known[attack.knowledge] if usual else source
    return sources


def _source(view: Recognizer) -> str | None:
    try:
        return describe_system(view)["hash"]
    except (TypeError, AttributeError):
        return None


def _hashes(paths: Iterable[str]) -> dict[str, str]:
    """path -> hash of the file's content. A file such as a lexicon changes the transcripts, so it belongs to the description."""
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in sorted(paths)}
