"""The pieces of the page. The docstring names the arguments that are markup; names, captions and labels are text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robust_asr.report.grid import Grid
from robust_asr.report.markup import escaped


def section(name: str, title: str, *content: str, intro: str = "") -> str:
    """``intro`` and ``content`` are markup."""
    lead = f'<p class="intro">{intro}</p>' if intro else ""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{lead}{"".join(content)}</section>\n'


def scroll(label: str, table: str, *, kind: str = "") -> str:
    """A box for a table that may be wider than the page; it can be scrolled by keyboard."""
    return f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{escaped(label)}">{table}</div>'


def details(summary: str, content: str, *, kind: str = "data", is_open: bool = False) -> str:
    state = " open" if is_open else ""
    return f'<details class="{kind}"{state}><summary>{escaped(summary)}</summary>{content}</details>'


def figure(caption: str, plot: str, data: str) -> str:
    """A plot with its data as a table below it. ``plot`` and ``data`` are markup."""
    return (
        f"<figure><figcaption>{escaped(caption)}</figcaption>{plot}"
        f"{details('Data of this plot', scroll(f'Data: {caption}', data))}</figure>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", texts: int = 1) -> str:
    """A table of markup cells. The first cell of a row is its head; from column ``texts`` on, cells are numbers."""
    named = f'<caption class="unseen">{escaped(caption)}</caption>' if caption else ""
    heads = "".join(f'<th scope="col"{_number(place, texts)}>{cell}</th>' for place, cell in enumerate(head))
    body = "".join(f"<tr>{_cells(row, texts)}</tr>" for row in rows)
    return f"<table>{named}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def plain_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "", texts: int = 1) -> str:
    """A table of values that are not markup."""
    return table(
        [escaped(cell) for cell in head],
        ([escaped(cell) for cell in row] for row in rows),
        caption=caption,
        texts=texts,
    )


def group_row(title: str, width: int) -> str:
    """A heading within a table, over ``width`` columns; it stays in view when the table scrolls. ``title`` is markup."""
    return f'<tr class="group"><th colspan="{width}" scope="colgroup"><span>{title}</span></th></tr>'


def chip(kind: str, text: str) -> str:
    return f'<span class="chip {kind}">{escaped(text)}</span>'


def _cells(row: Sequence[str], texts: int) -> str:
    first, *others = row
    cells = "".join(f"<td{_number(place, texts)}>{cell}</td>" for place, cell in enumerate(others, start=1))
    return f'<th scope="row">{first}</th>{cells}'


def _number(place: int, texts: int) -> str:
    return ' class="n"' if place >= texts else ""


def part_head(grid: Grid, part: str) -> str:
    """A heading where there are several parts."""
    return f"<h3>{escaped(part)}</h3>" if len(grid.parts) > 1 else ""
