"""What was this object built with? A description is plain data from which it can be built again."""

from __future__ import annotations

import inspect
from typing import Any


def describe(value: object) -> Any:
    """``{"class_path": ..., "init_args": ...}`` of an object, nested, as JSON-ready data.

    The convention (scikit-learn's): every constructor argument is kept under an attribute of its own name.

    Errors: TypeError names the class and the argument that cannot be described.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    kind = type(value)
    if kind.__module__ == "builtins":
        raise TypeError(f"a {kind.__name__} cannot be described as configuration")
    arguments = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(value, name):
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} does not keep its argument {name!r} as an attribute"
            )
        arguments[name] = describe(getattr(value, name))
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
