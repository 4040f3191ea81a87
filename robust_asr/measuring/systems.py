"""What a system and a condition are, for the record: weights, settings, and the files that they were built from."""

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
    """``hash``, ``columns`` of the papers' tables, and ``description`` as plain data.

    Two systems have one hash only where weights, settings, search and files are the same: no two of them ever share rows.
    """
    description = {
        "recognizer": describe(recognizer),
        "search": describe(recognizer.search),
        "weights": weights_hash(recognizer),
        "files": _hashes({*files_of(recognizer), *files_of(recognizer.search)}),
    }
    return {"hash": digest(description), "columns": recognizer.columns(), "description": description}


def describe_condition(attack: Attack, *, seed: int) -> dict[str, Any]:
    """As ``describe_system``; the same attack with another seed makes other rows."""
    description = describe(attack)
    return {"hash": digest([description, seed]), "columns": attack.columns(), "description": description}


def gradient_sources(
    systems: Iterable[tuple[str, Recognizer]], conditions: Mapping[str, Attack]
) -> dict[tuple[str, str], str | None]:
    """(system, condition) -> a hash of all that the attack is given of the system: of one hash, the attacked audio is the same.

    None where what the attack is given cannot be described: then it belongs to this system alone.

    Errors: ValueError where an attack cannot be given what it asks for, such as a straight-through form that does not exist.
    """
    sources: dict[tuple[str, str], str | None] = {}
    for system, recognizer in systems:
        # Weights are hashed once for each state of knowledge, not for each condition.
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
    """A lexicon is part of what a system hears: path -> hash of what is in it."""
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in sorted(paths)}
