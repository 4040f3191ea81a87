"""Descriptions of objects: plain data from which ``trust.build`` can build an equal object."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any


def describe(value: object) -> Any:
    """Describe an object as ``{"class_path": ..., "init_args": ...}``, with its arguments described the same way, ready for JSON.

    The object must follow scikit-learn's convention: every constructor argument is kept as an attribute of the same name.

    A class lists in ``later_arguments`` those that are left out while they have their default, because it had descriptions
    before it had them. An object that carries ``described_as`` is described as that one.

    Errors: TypeError names the class and the argument that cannot be described.
    """
    value = getattr(value, "described_as", value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    arguments = {name: describe(argument) for name, argument in _arguments(value)}
    kind = type(value)
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def files_of(value: object) -> Iterator[str]:
    """The paths of all files that an object and the objects inside it were built from.

    A class lists the names of its path arguments in ``file_arguments``; other texts are never taken for paths.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return
    if isinstance(value, list | tuple):
        arguments = list(value)
    elif isinstance(value, dict):
        arguments = list(value.values())
    else:
        named = getattr(type(value), "file_arguments", ())
        yield from (path for name, path in _arguments(value) if name in named and isinstance(path, str))
        arguments = [argument for _, argument in _arguments(value)]
    for argument in arguments:
        yield from files_of(argument)


def _arguments(value: object) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if kind.__module__ == "builtins":
        raise TypeError(f"a {kind.__name__} cannot be described as configuration")
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(value, name):
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} does not keep its argument {name!r} as an attribute"
            )
        if name not in getattr(kind, "later_arguments", ()) or getattr(value, name) != parameter.default:
            yield name, getattr(value, name)
