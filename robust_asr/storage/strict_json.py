"""JSON as its standard has it: no NaN, no infinity, no key twice."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(text: str | bytes) -> Any:
    """The content of a JSON text.

    Errors: ValueError says why the text is not JSON, for texts nested too deeply as well.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_with_distinct_keys
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds the number {name}")


def _finite(digits: str) -> float:
    # An exponent such as 1e999 reads as infinity.
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {digits[:20]}, which no float can hold")
    return number


def _with_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it holds the key {repeated[:40]!r} twice")
    return content
