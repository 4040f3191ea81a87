"""A file of tensors and plain data: written whole or not at all, and every byte of it is checked when it is read.

The layout is torch's zip archive with the SHA-256 of all that precedes it as the archive's comment, so ``torch.load``
reads it too. The comment is the last thing written: a file without it is not complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch

from robust_asr.storage.archive import check_archive, check_tensors, map_tensors
from robust_asr.storage.files import clean_leftovers, written_whole

_MARK = b"robust-asr sha256 "
_SEAL_SIZE = len(_MARK) + 64
_END_OF_ARCHIVE, _END_SIZE = b"PK\x05\x06", 22


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path of this machine's file systems. ValueError for a URL."""
    text = os.fspath(path)
    if "://" in text or "::" in text:
        raise ValueError(f"{text}: URLs are refused; download the file and name its path")
    return Path(text)


def write(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write beside the target, flush to the disk, rename. Killed at any moment, the target is the old file or the new.

    Errors: OSError (disk full, no permission) leaves the target as it was; ValueError names content that could not be
    read back.
    """
    path = local_path(path)
    try:
        clean_leftovers(path.parent)
        with written_whole(path) as partial, open(partial, "r+b") as file:
            _write_archive(content, file)
            check_archive(file, path)
            _seal(file)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"{path} was not written ({reason}); what was there before is untouched") from error


def check(content: dict[str, Any]) -> None:
    """ValueError says why ``write`` could not write the content so that it can be read back."""
    file, nowhere = io.BytesIO(), Path("what was to be written")
    try:
        _write_archive(content, file)
    except Exception as error:
        raise ValueError(_first_line(error)) from error
    check_archive(file, nowhere)


def read(path: str | os.PathLike[str], *, sealed: bool = True) -> dict[str, Any]:
    """The content, after every check: seal, archive, pickle, and that no tensor claims more than the file holds.

    Tensors are on the CPU and backed by the file itself, so nothing was allocated for them: ``materialize`` copies.

    Errors: FileNotFoundError; ValueError says what is wrong with the file.
    """
    path = local_path(path)
    with _open(path) as file:
        if sealed:
            _check_seal(file, path)
        check_archive(file, path)
        before = _identity(file)
        try:
            content = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        except Exception as error:
            raise ValueError(f"{path}: cannot be read as a checkpoint ({_first_line(error)})") from error
        if _identity(file) != before or os.stat(path)[:3] != os.fstat(file.fileno())[:3]:
            raise ValueError(f"{path}: was replaced while it was being read; read it again")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dictionary")
    check_tensors(content, path)
    return content


def verify(path: str | os.PathLike[str]) -> None:
    """ValueError unless the file is complete and unchanged since it was written."""
    path = local_path(path)
    with _open(path) as file:
        _check_seal(file, path)


def materialize(content: dict[str, Any]) -> dict[str, Any]:
    """The content with tensors in memory of their own."""
    return map_tensors(content, lambda tensor: tensor.detach().clone())


def _write_archive(content: dict[str, Any], file: BinaryIO) -> None:
    target = _FirstError(file)
    try:
        torch.save(content, target)
    except Exception as error:
        # torch reports a full disk as an internal error of its archive writer.
        raise target.error or error from None


class _FirstError:
    """A file for torch.save that remembers what the file system said."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _open(path: Path) -> BinaryIO:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    # Before the file is opened: a named pipe would block for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: is a folder or a device; a checkpoint is one regular file")
    return open(path, "rb")


def _identity(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns


def _seal(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(size - _END_SIZE)
    end = file.read()
    assert end.startswith(_END_OF_ARCHIVE) and end.endswith(b"\0\0"), (
        "torch.save ends with an archive record, without comment"
    )
    file.seek(size - 2)
    file.write(struct.pack("<H", _SEAL_SIZE) + _MARK)
    file.write(_digest(file, size + len(_MARK)))


def _check_seal(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _SEAL_SIZE, 0))
    seal = file.read()
    if not seal.startswith(_MARK):
        raise ValueError(
            f"{path}: has no checksum at its end; it is truncated or damaged, or was not written by this project "
            "(robust_asr.checkpoint.import_weights reads other files of weights, and save writes them with one)"
        )
    if _digest(file, size - 64) != seal[len(_MARK) :]:
        raise ValueError(f"{path}: its bytes do not agree with its checksum; it was damaged after it was written")


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first ``size`` bytes, as 64 hexadecimal digits."""
    file.flush()
    file.seek(0)
    digest, remaining = hashlib.sha256(), size
    while remaining and (block := file.read(min(remaining, 2**20))):
        digest.update(block)
        remaining -= len(block)
    return digest.hexdigest().encode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
