"""Short objects: ``{PGD: {threat: {Linf: 0.001}}}`` stands for class_path and init_args."""

from __future__ import annotations

import difflib
from typing import Any

from lightning_modules.command_line import catalogue
from lightning_modules.command_line.arguments import expected, fits
from lightning_modules.command_line.written import Place, short
from robust_asr.storage import trust


def is_object(node: Any) -> bool:
    """Whether data is a short object: a map whose only key is the name of a class of the catalogue, or nearly so.

    A map of one capitalised key that resembles no class stays what it is: tables of a user's own have such keys.
    """
    if not isinstance(node, dict) or len(node) != 1:
        return False
    name = next(iter(node))
    return catalogue.known(name) or (catalogue.is_name(name) and bool(catalogue.nearest(name)))


def must_be_object(node: Any, place: Place) -> Any:
    """As ``written_out``, where nothing but an object can be: a text may be the name of a class, and no key is left standing."""
    if isinstance(node, str):
        if "." in node:
            trust.check_name(node, field=str(place))
            return node
        node = {node: {}}
    if isinstance(node, dict) and len(node) == 1 and "class_path" not in node:
        return written_out(node, place)
    return node


def written_out(node: dict[str, Any], place: Place) -> dict[str, Any]:
    """A short object in full, whose arguments are in full already.

    Errors: ValueError names the file and key of a class or argument that there is not, and the nearest ones.
    """
    ((name, arguments),) = node.items()
    place /= name
    path = catalogue.class_path(name, place)
    if arguments is None:
        arguments = {}
    elif not isinstance(arguments, dict) or "class_path" in arguments:
        arguments = {catalogue.first_parameter(path, place): arguments}
    _check(arguments, catalogue.parameters(path), place)
    return {"class_path": path, "init_args": arguments} if arguments else {"class_path": path}


def _check(arguments: dict[str, Any], names: dict[str, Any] | None, place: Place) -> None:
    for key, value in arguments.items() if names is not None else ():
        name = str(key).split(".")[0]
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=1) or names)
            raise ValueError(f"{place}: takes no {name}, which is {short(value)}; did you mean {near}?")
        if name == key and not fits(value, names[name]):
            raise ValueError(f"{place / key}: is of type {expected(names[name])}, found {short(value)}")
