"""What a system is, for the record: its weights, its settings, and the files that it was built from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robust_asr.attacks.base import Attack
from robust_asr.checkpoint import weights_hash
from robust_asr.models.base import Recognizer
from robust_asr.results import digest
from robust_asr.search.greedy import Decoder
from robust_asr.storage.describe import describe


def describe_system(recognizer: Recognizer) -> dict[str, Any]:
    """``hash``, ``columns`` of the papers' tables, and ``description`` as plain data."""
    description: dict[str, Any] = {"recognizer": describe(recognizer)}
    decoders = {name: getattr(module, "decoder", None) for name, module in recognizer.named_modules()}
    # A search; a layer of a network may be called decoder, too.
    searches = {name: decoder for name, decoder in decoders.items() if isinstance(decoder, Decoder)}
    description["decoders"] = {name: describe(search) for name, search in searches.items()}
    description["weights"] = weights_hash(recognizer)
    description["files"] = dict(sorted(_files(description)))
    return {"hash": digest(description), "columns": _columns(recognizer), "description": description}


def describe_condition(attack: Attack, *, seed: int) -> dict[str, Any]:
    """As ``describe_system``; the same attack with another seed makes other rows."""
    description = describe(attack)
    return {"hash": digest([description, seed]), "columns": attack.columns(), "description": description}


def _columns(recognizer: Recognizer) -> dict[str, Any]:
    columns = {"model": type(innermost(recognizer)).__name__, "defense": "none", "sigma": ""}
    return columns | (recognizer.columns() if hasattr(recognizer, "columns") else {})


def innermost(recognizer: Recognizer) -> Recognizer:
    """The recogniser behind all defences."""
    while isinstance(getattr(recognizer, "recognizer", None), Recognizer):
        recognizer = recognizer.recognizer
    return recognizer


def _files(value: Any) -> Iterator[tuple[str, str]]:
    """Every file that a description names, with a hash of its content: a lexicon is part of what a system hears."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _files(item)
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\0" not in value and Path(value).is_file():
        yield value, hashlib.sha256(Path(value).read_bytes()).hexdigest()[:16]
