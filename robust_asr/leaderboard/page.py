"""The page of a leaderboard, from the pieces of the report."""

from __future__ import annotations

from collections.abc import Sequence

from robust_asr.leaderboard.ranking import Entry, Table
from robust_asr.report.blocks import chip, scroll, section, table
from robust_asr.report.breaking import amplitudes, decibels, staircase_figure
from robust_asr.report.markup import document, escaped
from robust_asr.report.numbers import count, interval, rate
from robust_asr.report.series import legend, swatch
from robust_asr.report.strips import PATTERNS
from robust_asr.report.style import REPORT_CSS
from robust_asr.results.breaking import median
from robust_asr.results.families import is_ratio

HEAD = (
    "rank",
    "system",
    "breaks at, dB",
    "amplitude",
    "behind the first, dB",
    "below",
    "not broken",
    "n",
    "clean WER, %",
    "forwards",
    "checks",
    "run",
)
_INTRO = (
    "Ranked by the median over utterances of the SNR at which a system breaks: <b>the lower, the more it withstands</b>. Each "
    "number is an upper bound on the budget that a stronger attack needs. Behind the first: the median of the paired differences "
    "and its interval; one that spans zero leaves the order of the two open. Below, not broken: utterances whose breaking point "
    "lies outside of the range that was searched. Forwards: passes of one transcript; passes of the search, for one utterance, on "
    "average."
)


def page_text(tables: Sequence[Table], title: str) -> str:
    notes = "".join(f'<p class="notice">{escaped(sentence)}</p>' for sentence in separations(tables))
    red = [entry for ranked in tables for entry in ranked.entries if entry.failed]
    failed = ", ".join(dict.fromkeys(f"{entry.system} ({', '.join(entry.runs)})" for entry in red))
    notes += (
        f'<p class="notice failed">{escaped(f"Checks failed for {failed}: explain them first.")}</p>' if red else ""
    )
    content = "".join(_section(ranked, number) for number, ranked in enumerate(tables, start=1))
    body = f'{PATTERNS}<h1>{escaped(title)}</h1>{notes}<p class="intro">{_INTRO}</p>\n<main>{content}</main>'
    return document(title, body, css=REPORT_CSS)


def separations(tables: Sequence[Table]) -> list[str]:
    """Why there are several tables, one sentence for each after the first."""
    return [
        f"Table {number} was measured on other terms than table 1 and cannot be compared with it: "
        f"{', '.join(ranked.terms.differences(tables[0].terms))}."
        for number, ranked in enumerate(tables[1:], start=2)
    ]


def heading(ranked: Table, number: int) -> str:
    sizes = dict.fromkeys(entry.points.n + entry.points.excluded for entry in ranked.entries)
    utterances = ", ".join(count(size, "utterance") for size in sizes)
    return f"Table {number}: {ranked.terms.attack}; {ranked.terms.budgets}; {utterances}"


def cells(entry: Entry, place: int) -> list[str]:
    """The columns of ``HEAD`` as text."""
    points, clean = entry.points, entry.clean
    level = amplitudes(median(points.levels))[0]
    behind = " ".join(decibels(entry.behind)) if entry.behind else "-"
    wer = f"{rate(clean['value'])} {interval(clean['ci_low'], clean['ci_high'])}" if clean else "not run"
    passes = f"{'-' if entry.per_transcript is None else entry.per_transcript}; {entry.attack_forwards:.0f}"
    excluded = f", {points.excluded} excluded" if points.excluded else ""
    counts = (str(points.below), str(points.beyond), f"{points.n}{excluded}")
    return [
        str(place),
        entry.system,
        " ".join(decibels(entry.snr)),
        level,
        behind,
        *counts,
        wer,
        passes,
        checked(entry),
        ", ".join(entry.runs),
    ]


def checked(entry: Entry) -> str:
    return "not checked" if entry.failed is None else f"{entry.failed} failed, {entry.passed} passed"


def _section(ranked: Table, number: int) -> str:
    rows = []
    for place, entry in enumerate(ranked.entries, start=1):
        row = [escaped(cell) for cell in cells(entry, place)]
        row[1] = f'{swatch(place - 1)} {row[1]}<br><span class="aside">{row.pop()}</span>'
        kind = "caution" if entry.failed is None else "bad" if entry.failed else "good"
        row[HEAD.index("checks")] = chip(kind, checked(entry))
        rows.append(row)
    title = heading(ranked, number)
    systems = [(entry.system, entry.points) for entry in ranked.entries]
    falls = is_ratio(ranked.columns.get("norm"))
    plot = staircase_figure(f"Table {number}: share of the utterances that a budget breaks", systems, falls=falls)
    listed = scroll(title, table(HEAD[:-1], rows, caption=title, texts=2))
    return section(
        f"table-{number}", title, listed, legend([system for system, _ in systems]), f'<div class="plots">{plot}</div>'
    )
