"""The verdict of an evaluation, in sentences without markup."""

from __future__ import annotations

from robust_asr.report.breaking import breaking_sentences
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.numbers import count, interval, listed, rate
from robust_asr.results.summary import is_attack

_NAMED = 4
_VERDICTS = {"pass": "passed", "fail": "failed", "not run": "not run"}


def verdict(grid: Grid) -> list[str]:
    """Sentences on the scope, the best and the worst system, the gain of each, and results that are missing or in doubt."""
    if not any(True for _ in grid.done()) and not breaking_sentences(grid):
        return [*_scope(grid), "No result is there yet."]
    return [
        *_scope(grid),
        *_by_part(grid),
        *breaking_sentences(grid),
        *_gains(grid),
        *_emptier(grid),
        *_masked(grid),
        *_checks(grid),
        *_missing(grid),
    ]


def progress(grid: Grid) -> list[str]:
    """One sentence for each run that holds fewer rows than it asks for."""
    return [
        f"Run {run.name} holds {len(run.evaluation.rows):,} of {count(run.expected, 'result')} (one for each utterance, "
        "system and condition): it is still under way, or was stopped."
        for run in grid.unfinished()
    ]


def not_run(grid: Grid) -> list[Cell]:
    return [cell for cell in [*grid.cells.values(), *grid.breaking.values()] if not cell.rows and cell.expected]


def _scope(grid: Grid) -> list[str]:
    sizes = [f"{part} ({count(about['num_utterances'], 'utterance')})" for part, about in grid.evaluation.parts.items()]
    attacks = [is_attack(grid.evaluation.conditions[name]) for name in _disturbed(grid)]
    kinds = [
        "clean audio" if grid.clean else "",
        count(attacks.count(False), "condition of noise", "conditions of noise") if False in attacks else "",
        count(attacks.count(True), "attack") if True in attacks else "",
        count(len({cell.condition for cell in grid.breaking.values()}), "breaking point") if grid.breaking else "",
    ]
    conditions = listed([kind for kind in kinds if kind])
    return [f"{count(len(grid.systems), 'system')} on {listed(sizes) or 'no data'}: {conditions or 'no condition'}."]


def _by_part(grid: Grid) -> list[str]:
    sentences = []
    for part in grid.parts:
        where = f" of {part}" if len(grid.parts) > 1 else ""
        clean = [cell for system in grid.systems if (cell := grid.clean_cell(part, system))]
        sentences += _best_and_worst(f"Clean audio{where}", clean)
        sentences += _worst_conditions(grid, part, where)
    return sentences


def _best_and_worst(where: str, cells: list[Cell]) -> list[str]:
    if not cells:
        return []
    best, *others = _by_wer(cells)
    line = best.wer
    lowest = f"{where}: {best.system} has {'the lowest WER,' if others else 'a WER of'} {rate(line['value'])} %"
    highest = f", {others[-1].system} the highest, {rate(others[-1].wer['value'])} %" if others else ""
    return [f"{lowest} {interval(line['ci_low'], line['ci_high'])}{highest}."]


def _worst_conditions(grid: Grid, part: str, where: str) -> list[str]:
    """The condition under which each system hears least, among those that every system met: it decides how robust a system is."""
    systems = {cell.system for cell in grid.done() if cell.part == part}
    met = [name for name in _disturbed(grid) if all(grid.cell(system, name, part).rows for system in systems)]
    if not met:
        return []
    cells = [
        max((grid.cell(system, name, part) for name in met), key=lambda cell: cell.wer["value"])
        for system in grid.systems
        if system in systems
    ]
    return [f"Worst condition{where} of each system{_of(met, grid)}: {_with_conditions(grid, _by_wer(cells))}."]


def _of(met: list[str], grid: Grid) -> str:
    return f", of the {len(met)} that all of them met" if len(met) < len(_disturbed(grid)) else ""


def _with_conditions(grid: Grid, cells: list[Cell]) -> str:
    each = [f"{cell.system} {rate(cell.wer['value'])} %" for cell in cells]
    names = [grid.label(cell.condition) for cell in cells]
    if len(set(names)) > 1:
        each = [f"{text} under {name}" for text, name in zip(each, names, strict=True)]
    shown = listed(each) if len(each) <= _NAMED else f"from {each[0]} to {each[-1]}"
    return f"{shown}, under {names[0]}" if len(set(names)) == 1 else shown


def _gains(grid: Grid) -> list[str]:
    """Against the first system, under how many disturbed conditions each other one makes fewer errors."""
    each = []
    disturbed = set(_disturbed(grid))
    for system in grid.systems[1:]:
        lines = [cell.difference for cell in grid.done() if cell.system == system and cell.condition in disturbed]
        lines = [line for line in lines if line]
        fewer, more = sum(line["ci_high"] < 0 for line in lines), sum(line["ci_low"] > 0 for line in lines)
        if lines:
            each.append(f"{system} in {fewer} of {len(lines)}, more in {more}")
    if not each or len(each) > _NAMED:
        return []
    return [f"Fewer errors than {grid.systems[0]} under noise or attack, by paired 95 % intervals: {'; '.join(each)}."]


def _emptier(grid: Grid) -> list[str]:
    cells = [cell for cell in grid.done() if cell.emptier]
    if not cells:
        return []
    return [f"A gain that comes from emptier transcripts is no gain: {_named(grid, cells)}."]


def _masked(grid: Grid) -> list[str]:
    cells = [cell for cell in grid.done() if cell.masked]
    if not cells:
        return []
    return [f"The attack met a masked gradient, so the number says nothing about robustness: {_named(grid, cells)}."]


def _named(grid: Grid, cells: list[Cell]) -> str:
    """The first few cells by name, and how many more there are."""
    names = [f"{cell.system} under {grid.label(cell.condition)}" for cell in cells[:_NAMED]]
    more = [count(len(cells) - _NAMED, "more cell")] if len(cells) > _NAMED else []
    return listed([*names, *more])


def failures(grid: Grid) -> list[str]:
    """The sentence on failed checks, which stands above everything else."""
    failed = [check.name for check in grid.checks if check.verdict == "fail"]
    if not failed:
        return []
    names = list(dict.fromkeys(failed))
    named = names if len(names) <= _NAMED else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return [
        f"{len(failed)} of {count(len(grid.checks), 'check')} failed: {'; '.join(named)}. Explain this before any number."
    ]


def _checks(grid: Grid) -> list[str]:
    verdicts = [check.verdict for check in grid.checks]
    each = [f"{verdicts.count(verdict)} {words}" for verdict, words in _VERDICTS.items() if verdict in verdicts]
    return [f"Checks: {listed(each)}."] if each else []


def _missing(grid: Grid) -> list[str]:
    absent = not_run(grid)
    partial = sum(cell.partial for cell in grid.done())
    sentences = []
    if partial:
        sentences.append(f"{count(partial, 'cell')} of the table {'is' if partial == 1 else 'are'} partial.")
    if absent:
        sentences.append(f"Not run: {_named(grid, absent)}.")
    return sentences


def _by_wer(cells: list[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: cell.wer["value"])


def _disturbed(grid: Grid) -> list[str]:
    return [name for name in grid.conditions if name not in grid.clean]
