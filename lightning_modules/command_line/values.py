"""Values: what differs between two sizes of one experiment has a name, and the recipe says ``$name``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_modules.command_line.strict_yaml import MAX_NODES
from lightning_modules.command_line.written import (
    Place,
    beside,
    did_you_mean,
    kind_of,
    parse,
    read,
    rooted,
    short,
    text_of,
)

KEY = "values"

MAX_TEXT = 10_000
_NONE = object()

_NAME = r"[A-Za-z_]\w*(?:\.\w+)*"
_ALONE = re.compile(rf"\$({_NAME})")
_INSIDE = re.compile(rf"\$\{{({_NAME})\}}")
_BARE = re.compile(rf"\$({_NAME})")


class Values:
    """Names and what they stand for; what is added later goes over what was there, name by name and whole.

    ``a.b: 1`` changes one entry of the map ``a`` and leaves the others.
    """

    def __init__(self) -> None:
        self._table: dict[str, tuple[Any, Place]] = {}
        self._open: list[str] = []
        self._size = 0
        self.used: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._table)

    def add(self, content: Any, place: Place, *, folder: Path) -> None:
        """Add a map, a file relative to ``folder``, or a list of them. A values file may itself stand on ``values``."""
        if isinstance(content, list):
            for index, item in enumerate(content):
                self.add(item, place / index, folder=folder)
        elif isinstance(content, str):
            self.add_file(beside(folder, content), place)
        elif isinstance(content, dict):
            for name, value in content.items():
                self._set(str(name), rooted(value, folder), place / name)
        elif content is not None:
            raise ValueError(f"{place}: {short(content)} is no map of names, no file and no list of these")

    def add_file(self, path: Path, place: Place | str) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{place}: names {path}, and there is no such file")
        path = Path(os.path.normpath(path))
        if str(path) in self._open:
            raise ValueError(f"{path}: {KEY} leads back to this file")
        self._open.append(str(path))
        content = read(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: holds no map of names, found {kind_of(content)}")
        self.add(content.pop(KEY, None), Place(str(path), (KEY,)), folder=path.parent)
        self.add(content, Place(str(path)), folder=path.parent)
        self._open.pop()

    def add_text(self, text: str) -> None:
        """``NAME=VALUE`` of the command line, the value as YAML."""
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise ValueError(f"--value takes NAME=VALUE, found {text!r}")
        place = Place(f"--value {name}")
        self._set(name, rooted(parse(value, place), Path.cwd()), place)

    def _set(self, name: str, value: Any, place: Place) -> None:
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"{place}: {name!r} is no name; names are letters, digits and _, and begin with no digit")
        parent, _, last = name.rpartition(".")
        if not parent:
            self._table[name] = (value, place)
            return
        inside = self._raw(parent, place)
        if not isinstance(inside, dict) or last not in inside:
            raise ValueError(
                f"{place}: there is no value {name} to change{did_you_mean(last, inside if isinstance(inside, dict) else ())}"
            )
        self._set(parent, {**inside, last: value}, self._table[parent.split(".")[0]][1])

    def fill(self, node: Any, place: Place) -> Any:
        """The data with each ``$name`` replaced by its value, and each ``${name}`` by the value's text.

        Errors: ValueError names the place, the name, and the names that there are.
        """
        self.count(1, place)
        if isinstance(node, dict):
            filled = {self._text(key, place): self.fill(value, place / key) for key, value in node.items()}
            if len(filled) < len(node):
                raise ValueError(f"{place}: two of its keys are the same once their values are filled in")
            return filled
        if isinstance(node, list):
            return [self.fill(item, place / index) for index, item in enumerate(node)]
        alone = _ALONE.fullmatch(node) if isinstance(node, str) else None
        return self._lookup(alone[1], place) if alone else self._text(node, place)

    def count(self, num: int, place: Place) -> None:
        """ValueError where values of values, or files of files, would grow without end."""
        self._size += num
        if self._size > MAX_NODES:
            raise ValueError(f"{place}: with everything written out there are more than {MAX_NODES} values")

    def _text(self, text: Any, place: Place) -> Any:
        if not isinstance(text, str) or "$" not in text:
            return text
        if bare := _BARE.search(text):
            raise ValueError(f"{place}: inside a text write ${{{bare[1]}}}, found {text!r}")
        filled = _INSIDE.sub(lambda found: text_of(self._lookup(found[1], place), place), text)
        if len(filled) > MAX_TEXT:
            raise ValueError(f"{place}: is a text of more than {MAX_TEXT} characters")
        return filled

    def _lookup(self, name: str, place: Place) -> Any:
        value = self._raw(name, place)
        self.used.add(name.split(".")[0])
        if name in self._open:
            raise ValueError(f"{place}: ${name} stands for itself")
        self._open.append(name)
        # Values may stand on values; an error in one is an error of the file that it was written in.
        filled = self.fill(value, self._table[name.split(".")[0]][1])
        self._open.pop()
        return filled

    def _raw(self, name: str, place: Place) -> Any:
        first, *rest = name.split(".")
        value = self._table[first][0] if first in self._table else _NONE
        known: Iterable[str] = self._table
        for part in rest:
            value = self._followed(value, place)
            known = value if isinstance(value, dict) else {}
            value = known.get(part, _NONE)
        if value is _NONE:
            raise ValueError(f"{place}: there is no value {name}{did_you_mean(name.rsplit('.', 1)[-1], known)}")
        return value

    def _followed(self, value: Any, place: Place) -> Any:
        """What a value is that names another one: ``$a.b`` is the entry of ``c`` where ``a`` is ``$c``."""
        names: set[str] = set()
        while isinstance(value, str) and (alone := _ALONE.fullmatch(value)):
            if alone[1] in names:
                raise ValueError(f"{place}: ${alone[1]} stands for itself")
            names.add(alone[1])
            self.used.add(alone[1].split(".")[0])
            value = self._raw(alone[1], place)
        return value

    def refuse_unused(self, names: Iterable[str]) -> None:
        """ValueError for a name of the command line that no recipe asks for: it would change nothing."""
        for name in names:
            if name.split(".")[0] not in self.used:
                raise ValueError(f"--value {name}: nothing in the recipe asks for it{did_you_mean(name, self.used)}")
