"""A recipe stands on another one, on fragments and on values, and becomes the full settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning_modules.command_line import short_form, tables
from lightning_modules.command_line.values import KEY as VALUES
from lightning_modules.command_line.values import Values
from lightning_modules.command_line.written import SUFFIXES, Place, beside, kind_of, read, short

RECIPE, FRAGMENTS = "recipe", "fragments"


class Recipe:
    """A recipe file and those that it stands on.

    ``recipe: FILE`` names another one, whose values, fragments and settings this one's go over. ``fragments: {trainer: FILE}``
    puts a file, a map or a list of these below a setting of every recipe. ``values`` are names for ``$name``. Paths are relative
    to the file.

    Errors: ValueError and FileNotFoundError name the file and the key.
    """

    def __init__(self, path: Path, *, above: tuple[Path, ...] = ()) -> None:
        self.path = Path(os.path.normpath(path))
        if self.path in above:
            raise ValueError(f"{self.path}: {RECIPE} leads back to this file")
        content = read(self.path)
        if not isinstance(content, dict):
            raise ValueError(f"{self.path}: holds no map of settings, found {kind_of(content)}")
        self._values, self._fragments = content.pop(VALUES, None), content.pop(FRAGMENTS, None) or {}
        base = content.pop(RECIPE, None)
        self._settings = content
        self._base = None if base is None else Recipe(self._beside(base, RECIPE), above=(*above, self.path))

    def collect(self, values: Values) -> None:
        """Add its values, over those of the recipe below."""
        if self._base:
            self._base.collect(values)
        values.add(self._values, Place(str(self.path), (VALUES,)), folder=self.path.parent)

    def settings(self, values: Values) -> dict[str, Any]:
        """The settings in full: no values, fragments or short forms are left in them."""
        found: dict[str, Any] = {}
        for name, (recipe, parts) in self._all_fragments(values).items():
            for part in parts if isinstance(parts, list) else [parts]:
                found = merged(found, {name: recipe._fragment(name, part, values)})
        return merged(found, self._own(values))

    def _all_fragments(self, values: Values) -> dict[str, tuple[Recipe, Any]]:
        """Setting -> its fragments and the recipe that names them: this one's instead of those of the recipe below."""
        below = self._base._all_fragments(values) if self._base else {}
        place = Place(str(self.path), (FRAGMENTS,))
        fragments = values.fill(self._fragments, place)
        if not isinstance(fragments, dict):
            raise ValueError(f"{place}: maps a setting to a file, found {short(fragments)}")
        return {**below, **{name: (self, parts) for name, parts in fragments.items()}}

    def _fragment(self, name: str, part: Any, values: Values) -> Any:
        if not isinstance(part, str):
            return in_full(part, values, Place(str(self.path), (FRAGMENTS, name)), folder=self.path.parent)
        file = self._beside(part, f"{FRAGMENTS}.{name}")
        return in_full(values.fill(read(file), Place(str(file))), values, Place(str(file)), folder=file.parent)

    def _own(self, values: Values) -> dict[str, Any]:
        place = Place(str(self.path))
        own = in_full(values.fill(self._settings, place), values, place, folder=self.path.parent)
        return merged(self._base._own(values), own) if self._base else own

    def _beside(self, name: object, key: str) -> Path:
        path = beside(self.path.parent, str(name))
        if not isinstance(name, str) or not path.is_file():
            raise FileNotFoundError(f"{self.path}: {key} names {short(name)}, and there is no such file beside it")
        return Path(os.path.normpath(path))


def in_full(node: Any, values: Values, place: Place, *, folder: Path, above: tuple[Path, ...] = ()) -> Any:
    """Data, its values filled in, with files, short objects and tables written out, from the inside to the outside."""
    values.count(1, place)
    if isinstance(node, list):
        return [in_full(item, values, place / index, folder=folder, above=above) for index, item in enumerate(node)]
    if isinstance(node, str) and Path(node).suffix in SUFFIXES and beside(folder, node).is_file():
        file = Path(os.path.normpath(beside(folder, node)))
        if file in above:
            raise ValueError(f"{place}: {file} leads back to itself")
        content = values.fill(read(file), Place(str(file)))
        return in_full(content, values, Place(str(file)), folder=file.parent, above=(*above, file))
    if not isinstance(node, dict):
        return node
    found = {key: in_full(item, values, place / key, folder=folder, above=above) for key, item in node.items()}
    last = place.keys[-1] if place.keys else ""
    if last in tables.KINDS:
        values.count(tables.size(found), place)
        return tables.table(last, found, place)
    # The keys of runs are names, whatever they look like; an entry of the systems is a row of their table.
    if last == "runs" or place.keys[-2:-1] == ("systems",):
        return found
    if tables.is_system(found):
        return tables.system(found, place)
    return short_form.written_out(found, place) if short_form.is_object(found) else found


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings over settings, as jsonargparse does it. An object of another class, a list or a table replaces what was there."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        both = isinstance(old, dict) and isinstance(value, dict) and key not in tables.KINDS
        same = both and value.get("class_path", old.get("class_path")) == old.get("class_path")
        found[key] = merged(old, value) if same else value
    return found
