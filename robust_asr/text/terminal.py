"""What commands print: names and texts come from files, and none of them may command the terminal."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from functools import cache
from types import TracebackType
from typing import Any, TextIO


def printable(text: str) -> str:
    """The text with U+FFFD in place of characters that are invisible or change the display of others."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def printable_lines(text: str) -> str:
    """The same for a text that keeps its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def say(*lines: object, file: TextIO | None = None, indent: str = "") -> None:
    """Print each argument as one line, all but the first after ``indent``. Nothing else in this project prints."""
    print(*(printable(str(line)) for line in lines), sep=f"\n{indent}", file=file, flush=True)


@cache
def guard_terminal() -> None:
    """Make warnings, log messages and tracebacks of this process printable too; every command begins with this."""
    sys.excepthook = _print_traceback
    format_warning, make_record = warnings.formatwarning, logging.getLogRecordFactory()

    def printable_warning(*arguments: Any, **options: Any) -> str:
        return printable_lines(format_warning(*arguments, **options))

    def printable_record(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        record.msg, record.args = printable_lines(record.getMessage()), None
        return record

    warnings.formatwarning = printable_warning
    logging.setLogRecordFactory(printable_record)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say(*"".join(traceback.format_exception(kind, error, trace)).splitlines(), file=sys.stderr)
