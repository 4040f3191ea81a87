"""YAML that means what it says: no key twice, no tags, no alias bomb, no nan, no number that reads as another."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

MAX_BYTES = 2**20
MAX_NODES = 50_000
MAX_DEPTH = 40

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_SPECIAL = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# As YAML 1.1 resolves them: 09 and 00:10 are texts.
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_BASE_60 = re.compile(r"[-+]?([1-9][0-9_]*(:[0-5]?[0-9])+|[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)")


class RefusedYAML(ValueError):
    """The text is YAML, and not one that a configuration may be."""


def where_it_breaks(error: Exception) -> str:
    """Why a text is no YAML, by line and column: the text itself may be a secret file, named by mistake, and is not shown."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    reason = re.sub(r"(['\"]).{2,}\1", "...", problem) if isinstance(problem, str) else type(error).__name__
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark is not None else reason


def load_texts(text: str, *, where: str) -> Any:
    """The value of a YAML text, every scalar as the text that was written.

    Errors: RefusedYAML names the line and what is refused; yaml.YAMLError where it is no YAML.
    """
    check(text, where=where)
    return yaml.load(text, Loader=_TEXTS)


def check(text: str, *, where: str) -> None:
    """RefusedYAML unless the text may be a configuration. A text that is one scalar may be any but a non-finite number."""
    if len(text) > MAX_BYTES:
        raise RefusedYAML(f"{where}: has {len(text)} characters, a configuration has at most {MAX_BYTES}")
    _check_events(text, where)
    _check_keys(yaml.compose(text, Loader=_PARSER), where, set())


def _check_events(text: str, where: str) -> None:
    """Tags, numbers, and the size and depth that the text would have with its aliases written out."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = documents = 0
    for event in yaml.parse(text, Loader=_PARSER):
        at = f"{where}: line {event.start_mark.line + 1}"
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes[anchor or ""] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise RefusedYAML(f"{at}: *{event.anchor} stands for what it is part of, or for nothing")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            if event.tag is not None:
                raise RefusedYAML(f"{at}: the tag {event.tag} is refused; values are plain")
            total += 1
            if isinstance(event, yaml.ScalarEvent):
                sizes[event.anchor or ""] = 1
                _check_scalar(event, at, lone=not open_nodes)
            else:
                open_nodes.append((event.anchor, total - 1))
        if total > MAX_NODES or len(open_nodes) > MAX_DEPTH or documents > 1:
            raise RefusedYAML(
                f"{at}: more than {MAX_NODES} values with all aliases written out, {MAX_DEPTH} levels or one document"
            )


def _check_scalar(event: yaml.ScalarEvent, at: str, *, lone: bool) -> None:
    value = event.value.strip()
    if _CONTROL.search(value):
        raise RefusedYAML(f"{at}: a text holds a control character")
    # Quoted too: jsonargparse reads a quoted ".nan" as a number where a number is wanted.
    overflows = _FLOAT.fullmatch(value) and len(value) < 400 and math.isinf(float(value.replace("_", "")))
    if _SPECIAL.fullmatch(value) or overflows:
        raise RefusedYAML(f"{at}: {value} is refused; numbers are finite")
    if lone or event.style:
        return
    if _OCTAL.fullmatch(value) or _BASE_60.fullmatch(value):
        raise RefusedYAML(f"{at}: {value} would be read as a number of base 8 or 60; write it in base 10, or in quotes")


def _check_keys(node: yaml.Node | None, where: str, seen: set[int]) -> None:
    if node is None or id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, where, seen)
        return
    keys: set[str] = set()
    for key, value in node.value:
        at = f"{where}: line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.tag.rsplit(":", 1)[-1] not in ("str", "int", "merge"):
            raise RefusedYAML(f"{at}: a key must be a name; put it in quotes if it is one")
        if key.value in keys:
            raise RefusedYAML(f"{at}: the key {key.value} occurs twice")
        keys.add(key.value)
        _check_keys(value, where, seen)
    for key in keys:
        parents = {key[:index] for index, character in enumerate(key) if character == "."}
        if parents & keys:
            raise RefusedYAML(f"{where}: both {key} and {(parents & keys).pop()} are given; write one inside the other")
