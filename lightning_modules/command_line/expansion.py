"""The command line with every recipe in full: a function of the arguments and the files that they name, nothing else.

Each process of a run that spans several expands the same arguments again, so all of them see one configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import yaml

from lightning_modules.command_line.config_guard import check_settings, is_config
from lightning_modules.command_line.fragments import Recipe, in_full
from lightning_modules.command_line.strict_yaml import check
from lightning_modules.command_line.values import Values
from lightning_modules.command_line.written import SUFFIXES, Place, dump, load, read, without_tilde


def expand(arguments: list[str]) -> list[str]:
    """Replace each ``--config FILE`` by what the file becomes, and fragments and short objects of other options likewise.

    ``--values FILE`` and ``--value NAME=VALUE`` go over the values of the recipes. What comes out is checked against the
    allowlist as what went in was: a value cannot put together what a file may not name.

    Errors: ValueError and FileNotFoundError name the file and the key.
    """
    options = list(_options(arguments))
    recipes = {at: Recipe(Path(value)) for at, (key, value, _) in enumerate(options) if value and is_config(key)}
    values = Values()
    for recipe in recipes.values():
        recipe.collect(values)
    named = _override(values, options)
    expanded: list[str] = []
    for at, (key, value, tokens) in enumerate(options):
        if at in recipes:
            settings = recipes[at].settings(values)
            check_settings(settings, recipes[at].path.parent, where=f"{recipes[at].path}: ")
            expanded.append(f"--config={dump(settings)}")
        elif key not in ("values", "value"):
            full = _in_full(key, value, values)
            expanded += tokens if full is None else [f"{tokens[0].partition('=')[0]}={full}"]
    values.refuse_unused(named)
    return expanded


def at_home(argument: str) -> str:
    """An argument whose path, alone or behind ``--option=``, begins with the home folder and no ``~``."""
    option, equals, value = argument.partition("=")
    return f"{option}={without_tilde(value)}" if equals and option.startswith("--") else without_tilde(argument)


def _options(arguments: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Option, its value or "", and the arguments that they are; what stands alone has the option ""."""
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if token.startswith("-c") and token != "-c":
            yield "config", token[2:].removeprefix("="), [token]
        elif not token.startswith("--") and token != "-c":
            yield "", "", [token]
        elif "=" in token:
            key, _, value = token.partition("=")
            yield key.lstrip("-").removesuffix("+"), value, [token]
        elif token == "--value":
            # Several at once, as the agent of a sweep writes them: --value a=1 b=2.
            texts = list(takewhile(lambda text: not text.startswith("-"), rest))
            del rest[: len(texts)]
            yield from (("value", text, [text]) for text in texts or [""])
        elif rest and not rest[0].startswith("-"):
            yield token.lstrip("-").removesuffix("+"), rest[0], [token, rest.pop(0)]
        else:
            yield token.lstrip("-"), "", [token]


def _override(values: Values, options: list[tuple[str, str, list[str]]]) -> list[str]:
    """Put the values of the command line over the others, files first; the names that it gave one by one."""
    for key, value, _ in options:
        if key == "values":
            values.add_file(Path(value), "--values")
    texts = [value for key, value, _ in options if key == "value"]
    for text in texts:
        values.add_text(text)
    return [text.partition("=")[0] for text in texts]


def _in_full(key: str, value: str, values: Values) -> str | None:
    """What an option becomes that names a fragment or holds a short object; None where it stays as it was written."""
    place = Place("the command line", tuple(f"--{key}".split(".")))
    if Path(value).suffix in SUFFIXES and Path(value).is_file():
        file = Path(value)
        content = values.fill(read(file), Place(value))
        full = in_full(content, values, place, folder=file.parent)
        check_settings(full, file.parent, where=f"{value}: ")
        return dump(full)
    if not value.startswith(("{", "[")):
        return None
    try:
        check(value, where=f"--{key}")
        content = load(value)
    except yaml.YAMLError:
        return None
    full = in_full(content, values, place, folder=Path.cwd())
    check_settings(full, Path.cwd(), where=f"--{key}: ")
    return None if full == content else dump(full)
