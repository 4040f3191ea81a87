"""The page: its sections stand in the order of a reader's questions."""

from __future__ import annotations

from collections.abc import Callable

from robust_asr.report.blocks import chip, part_head, section
from robust_asr.report.breaking import breaking_section
from robust_asr.report.check_list import check_section
from robust_asr.report.figures import distributions, strengths
from robust_asr.report.grid import Grid
from robust_asr.report.headline import headline_table
from robust_asr.report.markup import document, escaped
from robust_asr.report.method import method
from robust_asr.report.papers import paper_sections
from robust_asr.report.strips import EDITS, PATTERNS
from robust_asr.report.style import REPORT_CSS
from robust_asr.report.tables import cost_table, difference_table, edits_table, full_tables
from robust_asr.report.utterances import worst_utterances
from robust_asr.report.verdict import failures, progress, verdict
from robust_asr.results.emptier import LEAST_RISE

_LINKS = {
    "checks": "Checks",
    "wer": "WER",
    "strength": "Strength",
    "breaking": "Breaking points",
    "utterances": "Single utterances",
    "differences": "Differences",
    "papers": "Papers",
    "errors": "Kinds of errors",
    "cost": "Cost",
    "worst": "Worst utterances",
    "tables": "All numbers",
    "method": "Method",
}


def page_text(grid: Grid, title: str, *, max_bytes: int) -> str:
    """The whole page. Where it would grow beyond ``max_bytes``, audio is left out, and a sentence says how much."""
    sections = {
        "checks": check_section(grid),
        "wer": _each_part(grid, headline_table, "wer", "Word error rates", _WER),
        "strength": strengths(grid),
        "breaking": breaking_section(grid),
        "utterances": distributions(grid),
        "differences": _differences(grid),
        "papers": _papers(grid),
        "errors": _each_part(grid, edits_table, "errors", "Kinds of errors", _ERRORS),
        "cost": _each_part(grid, cost_table, "cost", "Cost", _COST),
        "worst": "",
        "tables": section("tables", "All numbers", full_tables(grid), intro=_TABLES),
        "method": section("method", "How the numbers were made", method(grid)),
    }
    rest = sum(len(content.encode()) for content in sections.values()) + len(REPORT_CSS) + 10_000
    sections["worst"] = _worst(grid, max(max_bytes - rest, 0))
    links = "".join(f'<a href="#{name}">{_LINKS[name]}</a>' for name, content in sections.items() if content)
    notices = "".join(f'<p class="notice">{escaped(sentence)}</p>' for sentence in progress(grid))
    notices += "".join(f'<p class="notice failed">{escaped(sentence)}</p>' for sentence in failures(grid))
    sentences = "".join(f'<p class="verdict">{escaped(sentence)}</p>' for sentence in verdict(grid))
    lead = f"<h1>{escaped(title)}</h1>{notices}{sentences}"
    body = f'{PATTERNS}{lead}<nav aria-label="Sections">{links}</nav>\n<main>{"".join(sections.values())}</main>'
    return document(title, body, css=REPORT_CSS)


_WER = (
    "Per cent, with its 95 % interval: the bar ends at the rate, the thin line is the interval. Below it the rate where no "
    "utterance counts more errors than it has words (capped), and that of inserted words alone; n utterances, and the shares of "
    f"transcripts with an error and without a word. {chip('caution', 'emptier')} marks a gain over the first system that comes "
    f"with at least {LEAST_RISE:g} points more empty transcripts or deleted words, and of which less than half are words heard "
    "right: a gain that comes from emptier transcripts is no gain."
)
_ERRORS = " &ensp;".join(
    f'<svg class="swatch" width="22" height="12" aria-hidden="true"><rect class="{name}" width="22" height="12"/></svg> {name}'
    for name in EDITS.values()
)
_ERRORS += ". Per cent of the reference words; empty: per cent of the transcripts."
_COST = "Computing time of a cell; forwards and iterations are the attacker's, for one utterance, on average."
_TABLES = "The lines of summary.csv and differences.csv, which lie beside this page."


def _each_part(grid: Grid, build: Callable[[Grid, str], str], name: str, title: str, intro: str) -> str:
    if not any(True for _ in grid.done()):
        return ""
    content = [part_head(grid, part) + build(grid, part) for part in grid.parts]
    return section(name, title, *content, intro=intro)


def _differences(grid: Grid) -> str:
    if not any(grid.gains(part) for part in grid.parts):
        return ""
    intro = (
        f"WER minus that of <b>{escaped(grid.systems[0])}</b>, in points, on the utterances that both have. Left of zero: fewer "
        "errors. An interval that spans zero leaves open which of the two is better. All other pairs, and "
        "those of breaking points, are in differences.csv."
    )
    return _each_part(grid, difference_table, "differences", "Paired differences", intro)


def _papers(grid: Grid) -> str:
    content = paper_sections(grid)
    intro = (
        "The papers' numbers as printed (- is not reported), in the columns of the attacks that this evaluation shares. "
        "Where the test sets differ, so do the scales: compare orders and trends, not values."
    )
    return section("papers", "Beside the papers", content, intro=intro) if content else ""


def _worst(grid: Grid, max_bytes: int) -> str:
    content, room = [], max_bytes
    for place, part in enumerate(grid.parts):
        # Each part gets an equal share of the room that is left, so that the first one does not take all of it.
        cards, note = worst_utterances(grid, part, max_bytes=room // (len(grid.parts) - place))
        room -= len(cards.encode())
        notice = f'<p class="notice">{escaped(note)}</p>' if note else ""
        if cards or note:
            content.append(part_head(grid, part) + notice + cards)
    intro = (
        "Most errors for each word first. Reference words; where the recogniser differs, what it heard stands below: "
        "S substituted, D deleted, I inserted. The audio of this page is compressed; the files beside the rows are exact."
    )
    return section("worst", "Worst utterances", *content, intro=intro) if content else ""
