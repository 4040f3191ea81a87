"""Cells of a CSV file: numbers that read back bit for bit, and texts that no spreadsheet computes."""

from __future__ import annotations

import re

from robust_asr.text.terminal import printable

Value = float | int | str
# Signs that open a formula, those of full width among them: some spreadsheets take them for the plain ones.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
# The numbers that ``encode`` writes; Python would take other texts for numbers too.
_INTEGER = re.compile(r"-?[0-9]{1,4000}")
_FLOAT = re.compile(r"-?([0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|inf)|nan")


def encode(value: object) -> str:
    """A cell that reads back as the same number, bit for bit.

    Text that a spreadsheet would compute gets a leading apostrophe; line breaks and the like become U+FFFD.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float):
        return repr(value)
    text = printable(str(value))
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def decode(cell: str) -> Value:
    """The value of a cell that ``encode`` wrote."""
    if cell.startswith("'"):
        return cell[1:]
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _FLOAT.fullmatch(cell) else cell
