"""Cells of a CSV file: numbers that read back bit for bit, and texts that no spreadsheet computes."""

from __future__ import annotations

import re

Value = float | int | str
_FORMULA = tuple("=+-@")
_INTEGER = re.compile(r"[+-]?\d+")


def encode(value: object) -> str:
    """A cell that reads back as the same number, bit for bit.

    Text that a spreadsheet would compute gets a leading apostrophe; line breaks and the like become U+FFFD.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float):
        return repr(value)
    text = "".join(character if character.isprintable() else "\ufffd" for character in str(value))
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def decode(cell: str) -> Value:
    """The value of a cell that ``encode`` wrote."""
    if cell.startswith("'"):
        return cell[1:]
    if _INTEGER.fullmatch(cell):
        return int(cell)
    try:
        return float(cell)
    except ValueError:
        return cell
