"""Trained modules on disk: a file holds named parts, each with its weights and the description from which it is built."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any

from torch import nn

from robust_asr.defenses.base import Defense
from robust_asr.models.base import Recognizer
from robust_asr.search.base import Search
from robust_asr.storage import sealed
from robust_asr.storage.describe import describe
from robust_asr.storage.parts import (
    FORMAT,
    KEY,
    check_state,
    load_part,
    parse_description,
    part_of,
    part_state,
    tensors_of,
    weights_hash,
)

RECOGNIZER = "recognizer"


def save(module: nn.Module, path: str | os.PathLike[str], *, name: str = RECOGNIZER) -> None:
    """Write a module as the part ``name`` of a sealed file; the file is written completely or not at all."""
    state = {f"{name}.{key}": tensor.detach().cpu() for key, tensor in module.state_dict().items()}
    sealed.write(finish({**metadata({name: (f"{name}.", module)}), "state_dict": state}), path)


def load(path: str, *, map_location: str = "cpu", search: Search | None = None) -> Recognizer:
    """Load the recogniser of a file written by ``save`` or by training, in evaluation mode. In a configuration:
    ``class_path: robust_asr.checkpoint.load``.

    ``search`` replaces the recogniser's default search; a file holds no search.

    Errors: as ``load_part``; ValueError for a search that does not fit the recogniser's outputs.
    """
    recognizer = load_part(path, RECOGNIZER, Recognizer)
    if search is not None:
        recognizer.use_search(search)
    return recognizer.to(map_location)


def load_defense(path: str, *, part: str = "denoiser") -> Defense:
    """Load a trained defence from a file written by training, in evaluation mode. Errors: as ``load_part``."""
    return load_part(path, part, Defense)


def load_weights(recognizer: Recognizer, path: str) -> None:
    """Load the weights of a file written by ``save`` or by training into an existing recogniser.

    Errors: FileNotFoundError; ValueError says what is wrong with the file, or names the first difference in architecture.
    """
    content = sealed.read(path)
    check_matches(content, {RECOGNIZER: recognizer}, path)
    state = part_state(content, RECOGNIZER, path)
    check_state(state, recognizer, path)
    recognizer.load_state_dict(state)


def import_weights(path: str, recognizer: Recognizer) -> None:
    """Load a plain ``state_dict`` file (``torch.save``) from elsewhere into a recogniser; ``save`` can then write a sealed file."""
    state = sealed.read(path, sealed=False)
    check_state(state, recognizer, path)
    recognizer.load_state_dict(state)


def metadata(parts: Mapping[str, tuple[str, nn.Module]]) -> dict[str, dict[str, Any]]:
    """The entry that makes the parts of a checkpoint loadable: plain data under the key "robust_asr".

    Args:
        parts: name -> the prefix of its tensors' names, and the module.
    """
    entries = {
        name: {"prefix": prefix, "description": json.dumps(describe(module), allow_nan=False)}
        for name, (prefix, module) in parts.items()
    }
    return {KEY: {"format": FORMAT, "project": version("robust-asr"), "parts": entries}}


def finish(content: dict[str, Any]) -> dict[str, Any]:
    """Add the hash of its weights to the entry of each part. Must be called when the weights are final."""
    if KEY not in content:
        return content
    parts = {
        name: {**entry, "weights_hash": weights_hash(tensors_of(content, entry["prefix"], "this checkpoint"))}
        for name, entry in content[KEY]["parts"].items()
    }
    return {**content, KEY: {**content[KEY], "parts": parts}}


def check_matches(content: Mapping[str, Any], parts: Mapping[str, nn.Module], path: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless the parts of a checkpoint have the same descriptions as these modules.

    A difference of tokenizers is reported as another alphabet, any other difference as another architecture.
    """
    for name, module in parts.items():
        description = parse_description(part_of(content, name, path)["description"], path)
        present = json.loads(json.dumps(describe(module)))
        differences = list(islice(_differences(description, present, ""), 4))
        if differences:
            subject = "alphabet" if any("tokenizer" in difference for difference in differences) else "architecture"
            differences.sort(key=lambda difference: "tokenizer" not in difference)
            raise ValueError(f"{path}: checkpoint of another {subject}: {'; '.join(differences[:3])}")


def _differences(saved: Any, present: Any, field: str) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(present, dict):
        for key in sorted(saved.keys() | present.keys()):
            # The key init_args is left out of the reported name, because users write the names of arguments only.
            inner = field if key == "init_args" else f"{field}.{key}".lstrip(".")
            yield from _differences(saved.get(key), present.get(key), inner)
    elif saved != present:
        yield f"{field} is {_short(saved)} in the file, {_short(present)} here"


def _short(value: Any) -> str:
    """A tokenizer's content may be a text of a megabyte."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:80]}... ({len(text)} characters)"
