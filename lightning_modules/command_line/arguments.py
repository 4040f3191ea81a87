"""Whether an argument of a short object can be what its class takes: jsonargparse asks later, and names neither file nor key."""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Any, Literal

from lightning_modules.command_line import catalogue

_SCALARS = (bool, int, float, str, NoneType)


def fits(value: Any, hint: Any) -> bool:
    """False where it certainly cannot be. What only jsonargparse understands passes: a list, a map, a type of another kind."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    if hint is Any or (value is None and hint is None):
        return True
    if isinstance(value, dict) and "class_path" in value:
        classes = [one for one in options if isinstance(one, type)]
        kind = catalogue.class_of(value["class_path"])
        return kind is None or len(classes) < len(options) or any(issubclass(kind, one) for one in classes)
    if not isinstance(value, _SCALARS) or (isinstance(value, str) and "{}" in value):
        # "{}" is the place of a strength.
        return True
    return any(_is(value, one) for one in options)


def _is(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint in _SCALARS:
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    # A text may be the name of a class or of a file; what is no class is for jsonargparse to judge.
    return isinstance(value, str) or not isinstance(hint, type)


def expected(hint: Any) -> str:
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")
