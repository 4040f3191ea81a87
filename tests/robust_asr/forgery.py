"""Checkpoint files as somebody else might write them: sealed correctly, and bad in one respect."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_asr import checkpoint
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.compact import CompactCTC
from robust_asr.storage import sealed
from robust_asr.text import CharacterTokenizer

CANARY = "canary_of_checkpoints"
PREFIX = f"{checkpoint.RECOGNIZER}."
HEAD = PREFIX + "head.weight"


def tiny() -> CompactCTC:
    return CompactCTC(CharacterTokenizer("AB "), num_mels=8, stem_channels=4, width=8, num_blocks=1, gru_width=4)


def content(**entry: Any) -> dict[str, Any]:
    """What ``save`` writes, with changes to its plain-data entry."""
    honest = of_module(tiny())
    return {**honest, checkpoint.KEY: {**honest[checkpoint.KEY], **entry}}


def of_part(**entry: Any) -> dict[str, Any]:
    """The content with changes to the entry of the recogniser."""
    honest = content()[checkpoint.KEY]["parts"][checkpoint.RECOGNIZER]
    return content(parts={checkpoint.RECOGNIZER: {**honest, **entry}})


def described(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The content with a changed description of the recogniser."""
    description = json.loads(content()[checkpoint.KEY]["parts"][checkpoint.RECOGNIZER]["description"])
    change(description)
    return of_part(description=json.dumps(description))


def with_tensors(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The content with a changed state dict."""
    changed = content()
    changed["state_dict"] = dict(changed["state_dict"])
    change(changed["state_dict"])
    return changed


def with_head(tensor: torch.Tensor) -> dict[str, Any]:
    return with_tensors(lambda state: state.update({HEAD: tensor}))


def of_module(module: nn.Module) -> dict[str, Any]:
    """The content for another module in place of the tiny recogniser."""
    state = {PREFIX + name: tensor for name, tensor in module.state_dict().items()}
    return checkpoint.finish({**checkpoint.metadata({checkpoint.RECOGNIZER: (PREFIX, module)}), "state_dict": state})


def behind_honest_tensors() -> dict[str, Any]:
    """All tensors agree, and a loss in the place of a denoiser asks for windows of 6 GB, which no file holds."""
    honest = of_module(Defended(Denoise(MultiResolutionSTFT(quietest=0.02)), tiny()))
    entry = honest[checkpoint.KEY]["parts"][checkpoint.RECOGNIZER]
    description = json.loads(entry["description"])
    network = description["init_args"]["defense"]["init_args"]["network"]
    network["init_args"] = {
        name: [2**24 - 2 * index for index in range(100)] for name in ("fft_sizes", "hops", "windows")
    }
    entry["description"] = json.dumps(description)
    return honest


def archive_of(value: object, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def repacked(change: Callable[[dict[str, bytes]], object], **settings: Any) -> bytes:
    """The archive with its members changed, written by zipfile."""
    with zipfile.ZipFile(io.BytesIO(archive_of(content()))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=settings.get("compression"))
    return buffer.getvalue()


def with_pickle(data: bytes) -> bytes:
    return repacked(lambda members: members.update({"archive/data.pkl": data}))


def edited_directory(offset: int, data: bytes) -> bytes:
    """The archive with bytes of the last entry of its central directory replaced."""
    raw = bytearray(archive_of(content()))
    start = raw.rindex(b"PK\x01\x02") + offset
    raw[start : start + len(data)] = data
    return bytes(raw)


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def bigger_storage() -> bytes:
    """A tensor that was ten numbers: it and its storage claim 2**40 of them."""
    claim = b"\x8a\x06" + (2**40).to_bytes(6, "little")
    raw = archive_of({"state_dict": {"recognizer.x": torch.zeros(10)}})
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        data = archive.read("archive/data.pkl")
    assert data.count(b"K\x0at") == data.count(b"K\x0a\x85") == 1
    return with_pickle(data.replace(b"K\x0at", claim + b"t").replace(b"K\x0a\x85", claim + b"\x85"))


def doubling(depth: int) -> dict[str, Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return {**content(), "epoch": value}


def containing_itself() -> dict[str, Any]:
    value: list[Any] = []
    value.append(value)
    return {**content(), "epoch": value}


def nested(depth: int) -> bytes:
    return with_pickle(b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * depth + b"a" * (depth - 1) + b"s.")


def write(path: Path, forged: bytes | dict[str, Any]) -> Path:
    """Seals what was forged, as an attacker can too: the seal tells damage, not intent."""
    data = forged if isinstance(forged, bytes) else archive_of(forged)
    with path.open("w+b") as file:
        if data[-22:-18] != b"PK\x05\x06":
            file.write(data + b"PK\x05\x06" + bytes(18))
        else:
            file.write(data)
        sealed._seal(file)
    return path


def _name_nested_canary(description: dict[str, Any]) -> None:
    description["init_args"]["tokenizer"] = {"class_path": f"{CANARY}.Model", "init_args": {}}


def _canary_as_a_number(description: dict[str, Any]) -> None:
    description["init_args"]["width"] = {"class_path": f"{CANARY}.Model", "init_args": {}}


def _named(class_path: str) -> Callable[[dict[str, Any]], None]:
    return lambda description: description.update(class_path=class_path)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda description: description["init_args"].update({key: value})


MALICIOUS: dict[str, Callable[[], bytes | dict[str, Any]]] = {
    "calls os.system": lambda: {**content(), "x": Calls(__import__("os").system, f"touch {CANARY}")},
    "calls eval": lambda: {**content(), "x": Calls(eval, f"open('{CANARY}', 'w')")},
    "calls bytearray": lambda: {**content(), "x": Calls(bytearray, 10**12)},
    "calls codecs.encode": lambda: {**content(), "x": b"bytes"},
    "opens a file by numpy": lambda: {**content(), "x": Calls(__import__("numpy").load, CANARY)},
    "holds a module": lambda: {**content(), "x": torch.nn.Linear(2, 2)},
    "holds a sparse tensor": lambda: with_head(torch.eye(4).to_sparse()),
    "holds a tensor without data": lambda: with_head(torch.ones(4, 8, device="meta")),
    "pickle of protocol 4": lambda: with_pickle(pickle.dumps(Calls(eval, "1"), protocol=4)),
    "pickle of protocol 0": lambda: with_pickle(f"(S'touch {CANARY}'\nios\nsystem\n.".encode()),
    "pickle that is cut": lambda: with_pickle(b"\x80\x02}q\x00(X"),
    "a bare pickle": lambda: pickle.dumps(Calls(eval, "1")),
    "the legacy layout": lambda: archive_of(content(), _use_new_zipfile_serialization=False),
    "deflated members": lambda: repacked(lambda members: None, compression=zipfile.ZIP_DEFLATED),
    "a member outside its folder": lambda: repacked(lambda members: members.update({f"archive/../{CANARY}": b"x"})),
    "a member of another name": lambda: repacked(lambda members: members.update({"archive/code/model.py": b"x"})),
    "a second folder": lambda: repacked(lambda members: members.update({"other/data.pkl": b"."})),
    "a member longer than the file": lambda: edited_directory(20, struct.pack("<II", 2**31, 2**31)),
    "a member that overlaps another": lambda: edited_directory(42, struct.pack("<I", 0)),
    "no data": lambda: repacked(lambda members: members.pop("archive/data.pkl")),
    "a stride of zero": lambda: with_head(torch.zeros(1).expand(2**31)),
    "a storage longer than its bytes": bigger_storage,
    "a list that contains itself": containing_itself,
    "nesting a hundred thousand deep": lambda: nested(100_000),
    "names a class outside the list": lambda: described(_named(f"{CANARY}.Model")),
    "names such a class inside": lambda: described(_name_nested_canary),
    "names such a class for a number": lambda: described(_canary_as_a_number),
    "names a class that is no recogniser": lambda: described(_named("robust_asr.text.CharacterTokenizer")),
    "names a function": lambda: described(_named("robust_asr.checkpoint.load")),
    "describes a giant": lambda: described(_set("width", 10**7)),
    "describes endless layers": lambda: described(_set("num_blocks", 10**9)),
    "describes a million layers": lambda: described(_set("num_blocks", 10**6)),
    "describes a giant of fixed tables": lambda: described(_set("num_mels", 10**7)),
    "describes a giant of integers": lambda: described(_set("num_time_masks", 10**4000)),
    "describes a giant behind honest tensors": behind_honest_tensors,
    "describes nan": lambda: described(_set("dropout", float("nan"))),
    "describes an unknown argument": lambda: described(_set("exec", "1")),
    "describes a key twice": lambda: of_part(description='{"class_path": "a.B", "class_path": "c.D", "init_args": {}}'),
    "describes nothing": lambda: of_part(description="[" * 100_000),
    "a description that is no text": lambda: of_part(description=7),
    "no parts": lambda: content(parts=[1]),
    "parts that are none": lambda: content(parts={checkpoint.RECOGNIZER: 7}),
    "a prefix that is no text": lambda: of_part(prefix=7),
    "a prefix of everything": lambda: of_part(prefix=""),
    "another format": lambda: content(format=99),
    "another hash": lambda: of_part(weights_hash="0" * 64),
    "no entry": lambda: {"state_dict": content()["state_dict"]},
    "no state": lambda: {**content(), "state_dict": [1, 2]},
    "a missing tensor": lambda: with_tensors(lambda state: state.pop(HEAD)),
    "an extra tensor": lambda: with_tensors(lambda state: state.update({"recognizer.extra": torch.zeros(1)})),
    "another shape": lambda: with_head(torch.zeros(2, 2)),
    "another type": lambda: with_head(content()["state_dict"][HEAD].double()),
    "not a dictionary": lambda: archive_of([1, 2, 3]),
}
