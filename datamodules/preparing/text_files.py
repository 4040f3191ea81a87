"""Text files as people write them: UTF-8 or UTF-16 with its mark, byte-order marks anywhere, line ends of any system."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MAX_BYTES = 2**30
_BYTE_ORDER_MARK = "\ufeff"


def text_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Number and text of each line; None for a line that is not UTF-8.

    Errors: ValueError says why the file cannot be read.
    """
    for number, line in enumerate(_in_utf8(path).splitlines(), start=1):
        try:
            # A byte-order mark begins a file, and stands within one that was joined of several.
            yield number, line.decode().replace(_BYTE_ORDER_MARK, "")
        except UnicodeDecodeError:
            yield number, None


def _in_utf8(path: Path) -> bytes:
    """The content; UTF-16 is known by its mark."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_size > _MAX_BYTES:
            raise ValueError(f"is larger than {_MAX_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16").encode()
        except UnicodeError as error:
            raise ValueError(f"begins like UTF-16 and is not ({error})") from error
    return content
