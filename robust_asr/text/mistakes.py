"""How every command ends at a user's mistake: one printable sentence, and exit code 2."""

from __future__ import annotations

import sys
from typing import NoReturn

from robust_asr.text.terminal import printable, say


def sentence(error: BaseException | str) -> str:
    """What went wrong, in one line that changes nothing on a terminal; a file that cannot be used comes first."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return printable(" ".join(text.split()) or type(error).__name__)


def leave(error: BaseException | str) -> NoReturn:
    """Print the sentence of a mistake and end the process."""
    say(f"error: {sentence(error)}", file=sys.stderr)
    sys.exit(2)
