"""Folders in Hugging Face's layout: what may be wrong with one, and what every recogniser does with the name of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robust_asr.models.base import Recognizer


def lacks(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_fields(name: str, **fields: object) -> Callable[[Path], None]:
    """A JSON file with other values."""

    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **fields}))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def check_hub_names(
    kind: Callable[[str], Recognizer], folder: Path, monkeypatch: pytest.MonkeyPatch, *, example: str
) -> None:
    """A name is looked up on the hub; what is neither there, nor a folder, nor a name is refused."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    assert kind("someone/something").model == kind(str(folder)).model

    def unreachable(name: str, **_: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="neither in the cache of Hugging Face nor can it be downloaded"):
        kind("someone/something")
    with pytest.raises(ValueError, match=f"no folder 'no such/folder/here', and it is no hub name such as {example}"):
        kind("no such/folder/here")
