"""A recipe as plain data: what stands where, and how a number was written."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader

from lightning_modules.command_line.strict_yaml import check, where_it_breaks

SUFFIXES = {".yaml", ".yml"}


class Place(NamedTuple):
    """Where in which file, for errors: ``recipes/a.yaml: model.init_args.systems``."""

    file: str
    keys: tuple[str, ...] = ()

    def __truediv__(self, key: object) -> Place:
        return Place(self.file, (*self.keys, str(key)))

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.keys)}" if self.keys else self.file


class Written(float):
    """A number that knows how it was written: a condition of strength 0.00003 is not called 3e-05."""

    text: str

    @classmethod
    def of(cls, number: float, text: str) -> Written:
        written = cls(number)
        written.text = text
        return written


class _Loader(get_yaml_default_loader()):
    """jsonargparse's rules of what is a number: a recipe means the same wherever it is read."""


def _number(loader: Any, node: yaml.ScalarNode) -> Written:
    return Written.of(loader.construct_yaml_float(node), node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _number)


class _Dumper(yaml.SafeDumper):
    """Every text in quotes, so that none is read as a number; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
_Dumper.add_representer(Written, lambda dumper, number: dumper.represent_float(float(number)))


def parse(text: str, where: object) -> Any:
    """Plain data of a YAML text. Errors: ValueError names the place, what is refused, or why it is no YAML."""
    try:
        check(text, where=str(where))
        return load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: cannot be read as YAML ({where_it_breaks(error)})") from error


def load(text: str) -> Any:
    """As ``parse``, unchecked. Errors: yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def read(path: Path) -> Any:
    """Plain data of a YAML file."""
    try:
        return parse(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as YAML (it is no text in UTF-8)") from error


def dump(value: Any) -> str:
    """One line of YAML that ``parse`` and jsonargparse read as the same data."""
    return yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**30
    ).strip()


def text_of(value: Any, place: Place) -> str:
    """A scalar as it was written. Errors: ValueError where the value is a list, a map or nothing."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{place}: {short(value)} cannot be put into a text; only a text or a number can")


def short(value: Any) -> str:
    text = dump(value).removesuffix("...").strip().replace('"', "")
    return text if len(text) <= 80 else text[:77] + "..."


def kind_of(value: Any) -> str:
    """What a file holds, without showing it."""
    return {dict: "a map", list: "a list", type(None): "nothing"}.get(type(value), "a single value")


def beside(folder: Path, name: str) -> Path:
    """The file that a text names: one beside ``folder``, an absolute path, or, after ``~/``, one in the home folder."""
    return folder / without_tilde(name)


def without_tilde(text: str) -> str:
    """A path with the home folder in place of ``~``, which a shell expands only where it begins a word."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def rooted(node: Any, folder: Path) -> Any:
    """The data with full paths of the YAML files beside ``folder`` that it names, so that it may be used elsewhere."""
    if isinstance(node, dict):
        return {key: rooted(value, folder) for key, value in node.items()}
    if isinstance(node, list):
        return [rooted(item, folder) for item in node]
    if isinstance(node, str) and Path(node).suffix in SUFFIXES and beside(folder, node).is_file():
        return str(beside(folder, node).resolve())
    return node


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """The end of a sentence about a name that there is not."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; the names are {', '.join(names)}" if names else "; no values are given"
