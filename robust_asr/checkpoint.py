"""A recogniser on disk: its weights, and the description from which it is built again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from robust_asr.models.base import Recognizer
from robust_asr.search.greedy import Decoder, use_decoder
from robust_asr.storage import sealed, trust
from robust_asr.storage.describe import describe

KEY = "robust_asr"
PREFIX = "recognizer."
FORMAT = 1


def save(recognizer: Recognizer, path: str | os.PathLike[str]) -> None:
    """Write a recogniser into one sealed file, whole or not at all."""
    state = {PREFIX + name: tensor.detach().cpu() for name, tensor in recognizer.state_dict().items()}
    sealed.write(finish({**metadata(recognizer), "state_dict": state}), path)


def load(path: str, *, map_location: str = "cpu", search: Decoder | None = None) -> Recognizer:
    """The recogniser of a file written by ``save`` or by training, in evaluation mode.

    ``search`` is how it searches, where its own greedy search shall not be used; a file holds no decoder.

    The file's class names pass the allowlist before anything is imported, and its tensors are compared with the
    described architecture before anything is allocated. In a configuration: ``class_path: robust_asr.checkpoint.load``.

    Errors: FileNotFoundError; ValueError says what is wrong with the file.
    """
    content = sealed.read(path)
    entry = entry_of(content, path)
    state = recognizer_state(content, path)
    description = parse_description(entry["recognizer"], path)
    check_state(state, _on_meta(description, limit=len(state), path=path), path)
    recognizer = trust.build(description, expected=Recognizer, field=f"{path}: recognizer")
    recognizer.load_state_dict(state)
    if weights_hash(recognizer) != entry["weights_hash"]:
        raise ValueError(f"{path}: its weights do not agree with the hash recorded for them")
    if search is not None:
        use_decoder(recognizer, search)
    return recognizer.to(map_location).eval()


def load_weights(recognizer: Recognizer, path: str) -> None:
    """Fill a recogniser that is there from a file written by ``save`` or by training.

    Errors: FileNotFoundError; ValueError says what is wrong with the file, or names the first difference in architecture.
    """
    content = sealed.read(path)
    check_matches(content, recognizer, path)
    state = recognizer_state(content, path)
    check_state(state, recognizer, path)
    recognizer.load_state_dict(state)


def import_weights(path: str, recognizer: Recognizer) -> None:
    """Fill a recogniser from a plain ``state_dict`` file (``torch.save``) of other origin; ``save`` then seals it."""
    state = sealed.read(path, sealed=False)
    check_state(state, recognizer, path)
    recognizer.load_state_dict(state)


def metadata(recognizer: Recognizer) -> dict[str, dict[str, Any]]:
    """The entry that makes a checkpoint loadable: plain data under the key "robust_asr"."""
    text = json.dumps(describe(recognizer), allow_nan=False)
    return {KEY: {"format": FORMAT, "project": version("robust-asr"), "recognizer": text}}


def finish(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the hash of the recogniser's weights in its entry, taken when the weights are final."""
    if KEY not in content:
        return content
    found = weights_hash(recognizer_state(content, "this checkpoint"))
    return {**content, KEY: {**content[KEY], "weights_hash": found}}


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state dict; the same on every device."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def entry_of(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The plain-data entry of a checkpoint, of a format that this version reads."""
    entry = content.get(KEY)
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(key), str) for key in ("recognizer", "weights_hash")
    ):
        raise ValueError(f"{path}: describes no recogniser (entry {KEY!r}); it was not written by this project")
    if entry.get("format") != FORMAT:
        raise ValueError(f"{path}: is of format {entry.get('format')!r}, this version reads format {FORMAT}")
    return entry


def parse_description(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a recogniser from its JSON text."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its description of the recogniser cannot be read ({error})") from error


def recognizer_state(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The recogniser's tensors in a checkpoint; in one of a training run that averages weights, the averaged ones."""
    state = content.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path}: holds no state_dict")
    found = {name[len(PREFIX) :]: tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    if not found or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path}: its state_dict holds no tensors of a recogniser (names that begin with {PREFIX!r})")
    return found


def check_state(state: Mapping[str, Any], module: nn.Module, path: str | os.PathLike[str]) -> None:
    """ValueError names the first tensors whose name, shape or type is not what the architecture has."""
    wanted = {name: _kind(tensor) for name, tensor in module.state_dict().items()}
    found = {str(name): _kind(tensor) for name, tensor in state.items()}
    names = sorted(wanted.keys() | found.keys())
    differences = [
        f"{name} is {found.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the architecture"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{path}: checkpoint of another architecture: {'; '.join(differences[:3])}{more}")


def check_matches(content: Mapping[str, Any], recognizer: Recognizer, path: str | os.PathLike[str]) -> None:
    """ValueError unless a checkpoint's recogniser is built like this one; another alphabet is named as such."""
    description = parse_description(entry_of(content, path)["recognizer"], path)
    present = json.loads(json.dumps(describe(recognizer)))
    differences = list(islice(_differences(description, present, ""), 4))
    if differences:
        what = "alphabet" if any("tokenizer" in difference for difference in differences) else "architecture"
        differences.sort(key=lambda difference: "tokenizer" not in difference)
        raise ValueError(f"{path}: checkpoint of another {what}: {'; '.join(differences[:3])}")


def _on_meta(description: dict[str, Any], *, limit: int, path: str | os.PathLike[str]) -> nn.Module:
    """The described module without memory. Its parameters are counted: a description cannot ask for endless layers."""
    registered = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal registered
        registered += 1
        # Twice: some layers register a parameter, then replace it.
        if registered > 2 * limit + 100:
            raise ValueError(
                f"checkpoint of another architecture: it describes more parameters than the {limit} in the file"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return trust.build(description, expected=Recognizer, field=f"{path}: recognizer")
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: {description['class_path']} cannot be built without memory ({error}); its constructor "
            "must compute fixed tensors under torch.device('cpu')"
        ) from error
    finally:
        handle.remove()


def _differences(found: Any, present: Any, field: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(present, dict):
        for key in sorted(found.keys() | present.keys()):
            # init_args is how a description is written, not what a user names.
            inner = field if key == "init_args" else f"{field}.{key}".lstrip(".")
            yield from _differences(found.get(key), present.get(key), inner)
    elif found != present:
        yield f"{field} is {found!r} in the file, {present!r} here"


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)
