"""The values that the .wandb files of a run already hold, by step.

The format is LevelDB's log: a header of 7 bytes, then blocks of 32 KiB with records of (checksum, length, kind, bytes).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_FULL, _LAST = 1, 4

Recorded = dict[int, set[str]]


def offline_pieces(run_dir: str | Path, run_id: str) -> list[Path]:
    """The offline files of a run, oldest first. Each start and each resume makes one."""
    return sorted(Path(run_dir).glob(f"*wandb/offline-run-*/run-{run_id}.wandb"))


def recorded_values(path: str | Path) -> Recorded:
    """Names of the values that a .wandb file holds for each step, without a last record that a kill cut short.

    Errors: ValueError where the file is no .wandb file.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    recorded: Recorded = {}
    for content in _records(Path(path)):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            step, names = _names(record.history)
            recorded.setdefault(step, set()).update(names)
    return recorded


def _names(history: object) -> tuple[int, set[str]]:
    items = {item.key or item.nested_key[0]: item.value_json for item in history.item}
    step = int(json.loads(items["_step"])) if "_step" in items else history.step.num
    return step, {name for name in items if not name.startswith("_")}


def _records(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    if len(data) < len(MAGIC):
        return
    if not data.startswith(MAGIC):
        raise ValueError(f"{path} is no .wandb file of a kind that can be read: it begins with {data[: len(MAGIC)]!r}")
    position, content = len(MAGIC), b""
    while position + _HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        checksum, size, kind = _HEADER.unpack_from(data, position)
        start, position = position + _HEADER.size, position + _HEADER.size + size
        if position > len(data) or zlib.crc32(data[start - 1 : position]) != checksum:
            return
        content += data[start:position]
        if kind in (_FULL, _LAST):
            yield content
            content = b""
