"""The named parts of a checkpoint: each is built from its description and given its tensors, both checked before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robust_asr.storage import sealed, strict_json, trust
from robust_asr.storage.trial import trial_build

KEY = "robust_asr"
FORMAT = 2

T = TypeVar("T", bound=nn.Module)


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
    return tensors_of(content, part_of(content, name, path)["prefix"], path)


def tensors_of(content: Mapping[str, Any], prefix: str, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with a prefix, without it. ValueError if there are none."""
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


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
