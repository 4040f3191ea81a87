"""Trained modules on disk: a file holds named parts, each with its weights and the description from which it is built."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robust_asr.defenses.base import Defense
from robust_asr.models.base import Recognizer
from robust_asr.search.base import Search
from robust_asr.storage import sealed, strict_json, trust
from robust_asr.storage.describe import describe
from robust_asr.storage.trial import trial_build

KEY = "robust_asr"
RECOGNIZER = "recognizer"
FORMAT = 2

T = TypeVar("T", bound=nn.Module)


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


def load_part(path: str | os.PathLike[str], name: str, expected: type[T]) -> T:
    """Load one part of a file written by ``save`` or by training: a recogniser, a denoiser, a detector.

    The file's class names are checked against the allowlist before anything is imported, and its tensors are compared with the
    described architecture before memory is allocated. The part is in evaluation mode, on the CPU.

    Errors: FileNotFoundError; ValueError says what is wrong with the file, or that the part is missing or no ``expected``.
    """
    content = sealed.read(path)
    entry = part_of(content, name, path)
    state = part_state(content, name, path)
    description = parse_description(entry["description"], path)
    check_state(state, trial_build(description, state, expected=expected, field=f"{path}: {name}"), path)
    module = trust.build(description, expected=expected, field=f"{path}: {name}")
    module.load_state_dict(state)
    if weights_hash(module) != entry["weights_hash"]:
        raise ValueError(f"{path}: its weights do not agree with the hash recorded for them")
    return module.eval()


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
        name: {**entry, "weights_hash": weights_hash(_tensors(content, entry["prefix"], "this checkpoint"))}
        for name, entry in content[KEY]["parts"].items()
    }
    return {**content, KEY: {**content[KEY], "parts": parts}}


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state dict; independent of the device."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def part_of(content: Mapping[str, Any], name: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The entry of a part in a checkpoint, as plain data. ValueError unless this version can read its format."""
    entry = content.get(KEY)
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: describes nothing to load (entry {KEY!r}); it was not written by this project")
    if entry.get("format") != FORMAT:
        raise ValueError(f"{path}: is of format {entry.get('format')!r}, this version reads format {FORMAT}")
    parts = entry.get("parts")
    if not isinstance(parts, dict) or name not in parts:
        names = ", ".join(map(str, parts)) if isinstance(parts, dict) else "none"
        raise ValueError(f"{path}: holds no {name}; its parts are: {names}")
    fields = ("prefix", "description", "weights_hash")
    if not isinstance(parts[name], dict) or not all(isinstance(parts[name].get(field), str) for field in fields):
        raise ValueError(f"{path}: its entry of the part {name} must hold the texts {', '.join(fields)}")
    return parts[name]


def parse_description(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a part from its JSON text."""
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: its description of a part cannot be read ({error})") from error


def part_state(content: Mapping[str, Any], name: str, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a part of a checkpoint; the averaged tensors if the training run averages weights."""
    return _tensors(content, part_of(content, name, path)["prefix"], path)


def _tensors(content: Mapping[str, Any], prefix: str, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    state = content.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path}: holds no state_dict")
    tensors = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path}: its state_dict holds no tensors whose names begin with {prefix!r}")
    return tensors


def check_state(state: Mapping[str, Any], module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Raise a ValueError that names the first tensors whose name, shape or type differs from the architecture."""
    wanted = {name: _kind(tensor) for name, tensor in module.state_dict().items()}
    saved = {str(name): _kind(tensor) for name, tensor in state.items()}
    names = sorted(wanted.keys() | saved.keys())
    differences = [
        f"{name} is {saved.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the architecture"
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{path}: checkpoint of another architecture: {'; '.join(differences[:3])}{more}")
    broken = not_finite(state, dict(module.named_parameters()))
    if broken is not None:
        raise ValueError(f"{path}: its weights {broken} are not finite; they were saved after training had failed")


def not_finite(state: Mapping[str, Any], parameters: Iterable[str]) -> str | None:
    """The name of the first tensor that holds what training never gives: NaN, or in a parameter an infinite number.

    Tables that are no parameters may hold infinite numbers: the logarithm of what cannot be.
    """
    parameters = set(parameters)
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta:
            broken = ~tensor.isfinite() if name in parameters else tensor.isnan()
            if bool(broken.any()):
                return name
    return None


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


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
