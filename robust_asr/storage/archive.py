"""Is a file a checkpoint and nothing more? Its bytes are checked before torch reads them, its tensors after that."""

from __future__ import annotations

import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

_MEMBER = re.compile(
    r"[^/\\]+/(data\.pkl|byteorder|version|data/\d+|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
_MAX_PICKLE = 64 * 2**20
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *(f"torch {kind}Storage" for kind in _STORAGES)}
)
# The instructions that torch.save writes for dictionaries, lists, tuples, plain values and tensors.
_OPCODES = frozenset(
    {
        "PROTO",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "BINFLOAT",
        "BINUNICODE",
        "EMPTY_DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
        "BINPERSID",
        "GLOBAL",
        "REDUCE",
        "BUILD",
    }
)


def check_archive(file: BinaryIO, path: Path) -> None:
    """ValueError unless the archive is one that torch.save writes: known names, nothing deflated or overlapping."""
    try:
        file.flush()
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            _check_members(members, file, path)
            (index,) = [member for member in members if member.filename.endswith("/data.pkl")]
            if index.file_size > _MAX_PICKLE:
                raise ValueError(
                    f"{path}: holds {index.file_size} bytes of plain data, at most {_MAX_PICKLE} are accepted"
                )
            check_pickle(archive.read(index), path)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OverflowError, EOFError) as error:
        raise ValueError(f"{path}: is not a complete archive ({error})") from error


def _check_members(members: list[zipfile.ZipInfo], file: BinaryIO, path: Path) -> None:
    names = [member.filename for member in members]
    if not all(_MEMBER.fullmatch(name) for name in names) or len({name.split("/")[0] for name in names}) != 1:
        raise ValueError(f"{path}: holds members that no checkpoint has, among {names[:3]}")
    if len(set(names)) != len(names) or sum(name.endswith("/data.pkl") for name in names) != 1:
        raise ValueError(f"{path}: holds a member twice, or no data.pkl")
    end = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(
                f"{path}: member {member.filename} is compressed; a checkpoint stores its bytes as they are"
            )
        file.seek(member.header_offset + 26)
        name_size, extra_size = struct.unpack("<HH", file.read(4))
        if member.header_offset < end or file.read(name_size) != member.filename.encode():
            raise ValueError(f"{path}: member {member.filename} overlaps another or is listed under a wrong name")
        end = member.header_offset + 30 + name_size + extra_size + member.file_size
    if end > file.seek(0, os.SEEK_END):
        raise ValueError(f"{path}: member {members[-1].filename} ends past the end of the file")


def check_tensors(content: dict[str, Any], path: Path) -> None:
    claimed: dict[int, int] = {}
    views: set[tuple[Any, ...]] = set()
    storages: dict[int, int] = {}

    def check(tensor: Tensor) -> None:
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or type(tensor) is not Tensor:
            raise ValueError(f"{path}: holds a {type(tensor).__name__} that is not a plain tensor")
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        view = (storage.data_ptr(), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if view in views:
            return
        views.add(view)
        claimed[storage.data_ptr()] = claimed.get(storage.data_ptr(), 0) + tensor.numel() * tensor.element_size()
        if claimed[storage.data_ptr()] > storage.nbytes():
            raise ValueError(
                f"{path}: a tensor of shape {tuple(tensor.shape)} claims more than the {storage.nbytes()} bytes of it"
            )

    try:
        map_tensors(content, check)
    except RecursionError as error:
        raise ValueError(f"{path}: its plain data is nested too deeply, or contains itself") from error
    if sum(storages.values()) > path.stat().st_size:
        raise ValueError(f"{path}: its tensors claim more bytes than the file has")


def check_pickle(data: bytes, path: Path) -> None:
    """ValueError unless a pickle holds tensors, dictionaries, lists, tuples and plain values, and nothing else.

    ``weights_only=True`` accepts a little more, ``bytearray(10**12)`` among it.
    """
    try:
        instructions = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    except Exception as error:
        raise ValueError(f"{path}: its plain data cannot be read ({error})") from error
    for name, argument in instructions:
        allowed = argument in _GLOBALS if name == "GLOBAL" else name in _OPCODES
        if not allowed:
            what = str(argument).replace(" ", ".") if name == "GLOBAL" else f"pickle instruction {name}"
            raise ValueError(f"{path}: holds {what}; a checkpoint holds tensors and plain data only")


def map_tensors(content: Any, function: Callable[[Tensor], Any]) -> Any:
    """``function`` of every tensor in nested dictionaries, lists and tuples; a tensor that is shared stays shared."""
    done: dict[int, Any] = {}
    unfinished = object()

    def visit(value: Any) -> Any:
        if not isinstance(value, Tensor | dict | list | tuple):
            return value
        if done.get(id(value)) is unfinished:
            raise RecursionError("plain data that contains itself")
        if id(value) not in done:
            done[id(value)] = unfinished
            if isinstance(value, Tensor):
                done[id(value)] = function(value)
            elif isinstance(value, dict):
                done[id(value)] = {key: visit(item) for key, item in value.items()}
            else:
                done[id(value)] = type(value)(visit(item) for item in value)
        return done[id(value)]

    return visit(content)
