"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".partial"
_LEFTOVER = re.compile(rf"\..+\.[0-9a-f]{{32}}{re.escape(_SUFFIX)}", re.DOTALL)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, renamed over ``path`` when the block ends without error.

    A process that dies leaves ``path`` as it was. Its half-written file stays until ``clean_leftovers`` deletes it: while the
    block runs, the file is locked and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, descriptor = _create_locked(path)
    try:
        with errors_naming(path, written_as=partial):
            yield partial
            _fsync(partial)
        os.replace(partial, path)
        fsync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place when the block ends without error.

    Errors: ValueError if ``folder`` exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a folder of its own")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _fsync(path)
        temporary.chmod(0o777 & ~_umask())
        os.replace(temporary, folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def append_whole(path: Path, content: bytes) -> None:
    """Append to a file all of the content or, where the disk is full or the process is interrupted, nothing.

    A process that is killed may leave a part. Errors: OSError names the file.
    """
    with errors_naming(path), path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            write_all(file.fileno(), content, end)
        except BaseException:
            file.truncate(end)
            raise


def write_all(descriptor: int, content: bytes, start: int) -> None:
    """Write at a place of an open file; the system may take a part of the content at a time."""
    remaining = memoryview(content)
    while remaining:
        written = os.pwrite(descriptor, remaining, start)
        remaining, start = remaining[written:], start + written


@contextmanager
def errors_naming(path: Path, *, written_as: Path | None = None) -> Iterator[None]:
    """An OSError of the block that names no file, or the file that it is ``written_as``, names ``path``."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or (written_as is not None and str(error.filename) == str(written_as))
        if not unnamed or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def clean_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete the half-written files that killed writers left in a folder, and return their paths.

    A file that is being written is locked, and stays.
    """
    removed = []
    for leftover in sorted(Path(folder).glob(f".*{_SUFFIX}")):
        if not _LEFTOVER.fullmatch(leftover.name):
            continue
        try:
            with open(leftover, "rb") as file:
                _lock(file.fileno())
                leftover.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
        removed.append(leftover)
    return removed


def fsync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the device: a rename is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_locked(path: Path) -> tuple[Path, int]:
    # Beside the target: a rename is atomic only within one file system.
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}{_SUFFIX}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _lock(descriptor)
        # Between the two calls another process may clean the folder: it locks the file and deletes it.
        locked = partial.exists()
    except BlockingIOError:
        locked = False
    if locked:
        return partial, descriptor
    os.close(descriptor)
    return _create_locked(path)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks; a run folder then has one writer by the command line's own rule.
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK):
            raise


def _fsync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
