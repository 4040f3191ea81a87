"""Verdicts of checks: the question, the answer with its number, and a list of many verdicts that a person can read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from robust_asr.text.terminal import printable

Verdict = Literal["fail", "not run", "pass"]
VERDICTS: tuple[Verdict, ...] = ("fail", "not run", "pass")
# Failures of one question that are shown: a fault of the set-up fails everywhere, and a hundred red lines say no more than a few.
_FAILURES = 6
_NAMED = 3


@dataclass(frozen=True)
class Check:
    """One verdict. ``value`` is the number that it rests on; "" where there is none, as for system and condition."""

    name: str
    verdict: Verdict
    system: str = ""
    condition: str = ""
    value: str | int | float = ""
    detail: str = ""

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Check:
        """The same verdict under other names, by kind: "system" and "condition"."""
        system, condition = (
            names[kind].get(getattr(self, kind), getattr(self, kind)) for kind in ("system", "condition")
        )
        return replace(self, system=system, condition=condition)


@dataclass(frozen=True)
class Question:
    """The question of a check.

    Attributes:
        name: the claim, which holds where the check passes.
        failure: one sentence on the meaning of a failure.
    """

    name: str
    failure: str

    def verdict(
        self, holds: bool, clause: str, *, system: str = "", condition: str = "", value: str | float = ""
    ) -> Check:
        """``clause`` is the observation, without a capital and a full stop."""
        detail = _sentence(clause) if holds else f"{_sentence(clause)} {self.failure}"
        return Check(self.name, "pass" if holds else "fail", system, condition, _plain(value), detail)

    def not_run(self, why: str, *, system: str = "", condition: str = "") -> Check:
        """``why`` names the condition that is missing, and how to add it."""
        return Check(self.name, "not run", system, condition, detail=_sentence(why))


def condensed(checks: Iterable[Check]) -> list[Check]:
    """For each question its first few failures, one line for each reason why it was not run, and one line for all that passed."""
    checks = list(checks)
    shown = []
    for name in dict.fromkeys(check.name for check in checks):
        own = [check for check in checks if check.name == name]
        shown += _first([check for check in own if check.verdict == "fail"])
        shown += _distinct([check for check in own if check.verdict == "not run"])
        shown += _together([check for check in own if check.verdict == "pass"])
    return shown


def lines(checks: Iterable[Check], *verdicts: Verdict) -> list[str]:
    """One line for each check with one of the verdicts, for a terminal."""
    chosen = [check for check in condensed(checks) if check.verdict in verdicts]
    chosen.sort(key=lambda check: VERDICTS.index(check.verdict))
    return [printable(_line(check)) for check in chosen]


def where(system: str, condition: str) -> str:
    return ", under ".join(text for text in (system, condition) if text)


def some(names: Sequence[str]) -> str:
    """The first few names: a, b, c and 7 more."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _line(check: Check) -> str:
    place = where(check.system, check.condition)
    parts = [f"{check.verdict.upper()}: {check.name}", f" ({place})" if place else "", f": {check.detail}"]
    return "".join(parts)


def _first(failed: list[Check]) -> list[Check]:
    more = failed[_FAILURES:]
    if len(more) < 2:
        return failed
    rest = _sentence(f"failed {len(more)} more times: {some([where(c.system, c.condition) for c in more])}")
    return [*failed[:_FAILURES], Check(failed[0].name, "fail", detail=rest)]


def _distinct(checks: list[Check]) -> list[Check]:
    """One check for each reason."""
    distinct: dict[str, Check] = {}
    for check in checks:
        first = distinct.setdefault(check.detail, check)
        if first is not check:
            same = {name: value for name in ("system", "condition") if (value := getattr(first, name)) != ""}
            differing = {name: "" for name, value in same.items() if getattr(check, name) != value}
            distinct[check.detail] = replace(first, **differing)
    return list(distinct.values())


def _together(passed: list[Check]) -> list[Check]:
    if len(passed) < 2:
        return passed
    numbers = [check.value for check in passed if not isinstance(check.value, str)]
    span = f", found {min(numbers):.4g} to {max(numbers):.4g}" if numbers else ""
    systems = {check.system for check in passed}
    system = systems.pop() if len(systems) == 1 else ""
    return [Check(passed[0].name, "pass", system, detail=_sentence(f"{len(passed)} times{span}"))]


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _plain(value: str | float) -> str | int | float:
    """JSON has no number for nan and infinity."""
    if isinstance(value, str | int):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
