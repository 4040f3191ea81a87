"""The section of checks: what failed and what was not run in the open, what passed folded away where it is much."""

from __future__ import annotations

from collections.abc import Sequence

from robust_asr.checks.verdicts import VERDICTS, Check, where
from robust_asr.report.blocks import chip, details, section
from robust_asr.report.grid import Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import count

_KINDS = {"fail": "bad", "not run": "caution", "pass": "good"}
_MOST_PASSED = 4


def check_section(grid: Grid) -> str:
    """Failures first. Nothing where a run folder holds no checks."""
    if not grid.checks:
        return ""
    ranked = sorted(grid.checks, key=lambda check: VERDICTS.index(check.verdict))
    passed = [check for check in ranked if check.verdict == "pass"]
    if len(passed) <= _MOST_PASSED:
        return section("checks", "Checks", _list(grid, ranked))
    others = [check for check in ranked if check.verdict != "pass"]
    folded = details(f"{count(len(passed), 'check')} passed", _list(grid, passed), kind="group")
    return section("checks", "Checks", _list(grid, others) if others else "", folded)


def _list(grid: Grid, checks: Sequence[Check]) -> str:
    return f'<ul class="checks">{"".join(_item(grid, check) for check in checks)}</ul>'


def _item(grid: Grid, check: Check) -> str:
    kind = _KINDS[check.verdict]
    place = where(check.system, grid.label(check.condition))
    value = f"Value: {check.value}" if check.value != "" else ""
    asides = "".join(f'<br><span class="aside">{escaped(text)}</span>' for text in (place, check.detail, value) if text)
    return f'<li class="{kind}">{chip(kind, check.verdict)}<div>{escaped(check.name)}{asides}</div></li>'
