"""Models in Hugging Face's layout: finding the folder, reading its JSON and safetensors, and a description as one text.

Only JSON, text and safetensors are read. A pickle or code in the folder is refused.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_asr.storage import strict_json

INLINE = "zlib:"
WEIGHTS = "model.safetensors"
SLOW_TOKENIZER = ("vocab.json", "merges.txt")
_MISSING = "models in Hugging Face's layout need transformers, which is not installed: pip install 'robust-asr[hf]'"
_WANTED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    *SLOW_TOKENIZER,
    "added_tokens.json",
    "normalizer.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    WEIGHTS,
)
# No published description is larger than 4 MB; a deflated text of a stranger may be made to grow without end.
_MOST_BYTES = 2**25


def pack(fields: Mapping[str, Any]) -> str:
    """One text that holds a description, ready for a checkpoint; ``unpack`` reads it."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False)
    return INLINE + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(text: str) -> dict[str, Any]:
    """The description of a text that ``pack`` wrote. ValueError for any other text."""
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(base64.b64decode(text.removeprefix(INLINE), validate=True), _MOST_BYTES)
        if not inflate.eof:
            raise ValueError(f"it holds more than {_MOST_BYTES} bytes, or is cut off")
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from error
    fields = strict_json.loads(content)
    if not isinstance(fields, dict):
        raise ValueError(f"it holds a {type(fields).__name__}, not a JSON object")
    return fields


def named_folder(model: str, *, example: str) -> Path:
    """``folder_of``, refused while a checkpoint is tried.

    Checkpoints are tried on the meta device first. One from a stranger must not make us read a folder or ask the hub.
    """
    if torch.get_default_device().type == "meta":
        raise ValueError(f"model: {model[:80]!r} is a name; a checkpoint holds the description of its model itself")
    return folder_of(model, example=example)


def folder_of(model: str, *, example: str) -> Path:
    """The local folder of a model: the folder itself, or that of a hub name in Hugging Face's cache, downloaded where necessary.

    Errors: ValueError if there is no such folder, and no such model in the cache or the hub.
    """
    if (folder := Path(model)).is_dir():
        return folder
    if not _is_hub_name(model):
        raise ValueError(f"model: there is no folder {model!r}, and it is no hub name such as {example}")
    hub = require_library("huggingface_hub")
    try:
        return Path(hub.snapshot_download(model, allow_patterns=list(_WANTED)))
    # Which errors a download raises depends on the libraries below; each means that the model could not be had.
    except Exception as error:
        raise ValueError(
            f"model: there is no folder {model!r}, and the hub's model of this name is neither in the cache of "
            f"Hugging Face nor can it be downloaded ({type(error).__name__})"
        ) from error


def read_json(folder: Path, name: str, *, kind: str) -> dict[str, Any]:
    """The JSON object in a file of the folder. ValueError names the file; ``kind`` says what such a folder describes."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} lacks {name}, which a {kind} in Hugging Face's layout has")
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def check_weights(folder: Path) -> None:
    """Raise a ValueError unless the folder holds its weights as one file of safetensors."""
    if (folder / WEIGHTS).is_file():
        return
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise ValueError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is read: convert them to {WEIGHTS}"
        )
    parts = " in one piece" if (folder / f"{WEIGHTS}.index.json").is_file() else ""
    raise ValueError(f"{folder} lacks {WEIGHTS}{parts}")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors`` by their names; floating point in float32. ValueError for another kind of file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_weights(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read as safetensors ({error})") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_tensors(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load tensors into a module. ValueError names the first whose name or shape differs."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise ValueError(
            f"{folder}: {wrong[0]} is {found.get(wrong[0], 'absent')} in {WEIGHTS}, "
            f"{wanted.get(wrong[0], 'absent')} by config.json; tensors that differ: {len(wrong)}"
        )
    module.load_state_dict(state)


def refuse_code(folder: Path, config: Mapping[str, Any], *, file: str = "config.json") -> None:
    """Raise a ValueError if a configuration names code of its own."""
    if "auto_map" in config:
        raise ValueError(f"{folder}: {file} names code of its own (auto_map), which is never run")


def require_library(name: str = "transformers") -> Any:
    """The module ``transformers`` or ``huggingface_hub``. ValueError says what to install where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{_MISSING} ({error})") from error


def _is_hub_name(model: str) -> bool:
    parts = model.split("/")
    return len(parts) in (1, 2) and all(
        part and part[0].isalnum() and part.replace("-", "").replace(".", "").replace("_", "").isalnum()
        for part in parts
    )
