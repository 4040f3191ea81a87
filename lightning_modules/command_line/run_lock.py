"""One job a run folder: a second one is refused while the first lives, on this machine or on another."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robust_asr.storage.files import errors_naming
from robust_asr.text.terminal import say

LOCK = ".lock"

# A living job touches its lock so often; one that has not done so for as long as WATCH is dead. Units: seconds.
BEAT, WATCH = 5.0, 30.0


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """The run folder is this process's alone while the block runs.

    The system gives the lock back however the process ends. Where a file system has no locks, or keeps them to one machine, the
    file says whose it is and a job that lives touches it: a lock that another machine left behind is watched before it is taken.

    Errors: ValueError where another job is in the folder.
    """
    created = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK
    descriptor, locked = _open(path)
    try:
        _refuse_the_living(path, descriptor, locked)
        with errors_naming(path):
            _sign(path, descriptor, locked)
    except BaseException:
        os.close(descriptor)
        raise
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(descriptor, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for folder in created:
            # What was made for the lock alone goes with it.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _open(path: Path) -> tuple[int, bool]:
    """The open file, and whether it is locked: where the file system has no locks it is not."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(path, descriptor)
            # Between the two calls the job before may have ended, and taken its file away.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> bool:
    try:
        # Of the process, not of the open file: workers that outlive a killed job must not keep the folder.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _taken(path, descriptor) from None
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK):
            raise
        return False
    return True


def _refuse_the_living(path: Path, descriptor: int, locked: bool) -> None:
    owner = _owner(descriptor)
    if not owner or (locked and owner.split()[0] == socket.gethostname()):
        return
    say(f"{path} was left by process {_in_words(owner)}: waiting {WATCH:g} s to see whether it lives")
    before, until = _touched(path), time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(min(BEAT, WATCH) / 2)
        if _touched(path) != before:
            raise _taken(path, descriptor)
    if locked:
        # Looking at the file gave the lock back.
        _lock(path, descriptor)


def _touched(path: Path) -> int | None:
    # A network file system asks its server when a file is opened; the answer to a mere stat may be a minute old. A process that
    # holds a lock of its own on the file would lose it here.
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _sign(path: Path, descriptor: int, locked: bool) -> None:
    text = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}\n".encode()
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, text, 0)
    os.fsync(descriptor)
    if not locked:
        # Two that started together: the one that signed last stays.
        time.sleep(1.0)
        if path.read_bytes() != text:
            raise _taken(path, descriptor)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _owner(descriptor: int) -> str:
    text = os.pread(descriptor, 1000, 0).decode(errors="replace")
    return text if len(text.split()) == 3 else ""


def _in_words(owner: str) -> str:
    host, process, *_ = owner.split()
    return f"{process} on {host}"


def _taken(path: Path, descriptor: int) -> ValueError:
    owner = _owner(descriptor)
    whose = f" (process {_in_words(owner)})" if owner else ""
    return ValueError(
        f"run_dir {path.parent}: another job{whose} is in this folder; wait for its end, or name another --run_dir"
    )
