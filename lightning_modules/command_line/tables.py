"""Tables of an evaluation: systems by their run folders, conditions by the family."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lightning_modules.command_line import catalogue
from lightning_modules.command_line.short_form import must_be_object
from lightning_modules.command_line.written import Place, short, text_of

KINDS = ("systems", "conditions")

_LOAD = "robust_asr.checkpoint.load"
_DEFENDED, _CHAIN = "robust_asr.defenses.base.Defended", "robust_asr.defenses.base.Chain"
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(?<!\.ckpt)")
_VOTED = "robust_asr.defenses.voted.Voted"
_SYSTEM = {"run", "defenses", "search", "vote"}


def table(kind: str, entries: dict[str, Any], place: Place) -> dict[str, Any]:
    """Name -> object in full; an entry with ``strengths`` or ``runs`` becomes one of each.

    Errors: ValueError names the entry, and a name that occurs twice.
    """
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        for full, member in _members(str(name), entry, place / name):
            if full in found:
                raise ValueError(f"{place / name}: {full} is in the table already")
            found[full] = _row(kind, member, place / name)
    return found


def size(entries: Any) -> int:
    """How many values a table has, at most, with its families written out."""
    if not isinstance(entries, dict | list):
        return 1
    items = entries.values() if isinstance(entries, dict) else entries
    members = entries.get("strengths", entries.get("runs", ())) if isinstance(entries, dict) else ()
    return (1 + sum(map(size, items))) * (max(1, len(members)) if isinstance(members, dict | list) else 1)


def _row(kind: str, entry: Any, place: Place) -> Any:
    if kind == "systems" and isinstance(entry, str) and not (catalogue.known(entry) or _CLASS_PATH.fullmatch(entry)):
        return system({"run": entry}, place)
    if kind == "systems" and isinstance(entry, dict) and "run" in entry:
        return system(entry, place)
    return must_be_object(entry, place)


def is_system(node: Any) -> bool:
    """Whether data outside the table of systems is one: a run, what it is with, and nothing else."""
    return isinstance(node, dict) and "run" in node and node.keys() <= _SYSTEM


def system(entry: dict[str, Any], place: Place) -> dict[str, Any]:
    """The recogniser of a run behind its defences, the first of which meets the audio first, and a vote over its draws.

    ``run`` is a run folder, of which the last checkpoint is taken, or the path of a checkpoint.
    """
    if unknown := entry.keys() - _SYSTEM:
        raise ValueError(f"{place}: {', '.join(sorted(unknown))}: a system has run, defenses, search and vote")
    run, defenses = entry["run"], entry.get("defenses") or []
    if not isinstance(run, str) or not isinstance(defenses, list):
        raise ValueError(f"{place}: run is a folder or a checkpoint, and defenses a list, found {short(entry)}")
    path = run if run.endswith(".ckpt") else f"{run.rstrip('/')}/checkpoints/last.ckpt"
    search = {"search": must_be_object(entry["search"], place / "search")} if "search" in entry else {}
    found = {"class_path": _LOAD, "init_args": {"path": path, **search}}
    if defenses:
        links = [must_be_object(item, place / "defenses" / index) for index, item in enumerate(defenses)]
        chain = links[0] if len(links) == 1 else {"class_path": _CHAIN, "init_args": {"defenses": links}}
        found = {"class_path": _DEFENDED, "init_args": {"defense": chain, "recognizer": found}}
    if "vote" in entry:
        vote = must_be_object(entry["vote"], place / "vote")
        found = {"class_path": _VOTED, "init_args": {"recognizer": found, "vote": vote}}
    return found


def _members(name: str, entry: Any, place: Place) -> Iterator[tuple[str, Any]]:
    """The (name, entry) pairs that an entry stands for: itself, or a family, which at some scale may have no member."""
    kinds = [key for key in ("strengths", "runs") if isinstance(entry, dict) and key in entry]
    if not kinds:
        if "{}" in name:
            raise ValueError(f"{place}: {{}} in a name needs strengths, or the runs of several systems")
        yield name, entry
        return
    if len(kinds) > 1 or "{}" not in name:
        raise ValueError(f"{place}: a family has strengths or runs, one of them, and {{}} in its name where they go")
    members, rest = entry[kinds[0]], {key: value for key, value in entry.items() if key != kinds[0]}
    if kinds == ["runs"]:
        if not isinstance(members, dict) or "run" in rest:
            raise ValueError(f"{place / 'runs'}: is a map from the name of a system to its run, found {short(members)}")
        yield from ((name.replace("{}", str(inner)), {"run": run, **rest}) for inner, run in members.items())
        return
    if not isinstance(members, list):
        raise ValueError(f"{place / 'strengths'}: is a list of numbers, found {short(members)}")
    for strength in members:
        put = _with_strength(rest, strength, place)
        if put == rest:
            raise ValueError(f'{place}: nothing in it says "{{}}", where the strength goes')
        # 35.0 and 35 are one strength; a recipe may need the former where 35 would not be a float.
        yield name.replace("{}", text_of(strength, place / "strengths").removesuffix(".0")), put


def _with_strength(node: Any, strength: Any, place: Place) -> Any:
    """The data with the strength for "{}", and its text for {} inside a longer text."""
    if isinstance(node, dict):
        return {key: _with_strength(value, strength, place) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_strength(item, strength, place) for item in node]
    if node == "{}":
        return strength
    return node.replace("{}", text_of(strength, place)) if isinstance(node, str) and "{}" in node else node
