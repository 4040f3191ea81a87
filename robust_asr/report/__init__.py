"""What people take away from an evaluation: one page, and the same tables as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.markdown import markdown_text
from robust_asr.report.page import page_text
from robust_asr.report.runs import begin_with, read_runs
from robust_asr.results.summary import COLUMNS, DIFFERENCE_COLUMNS, write_table
from robust_asr.storage.files import written_whole

PAGE = "index.html"
MAX_BYTES = 5_000_000


def report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    first: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Grid:
    """Write ``index.html``, ``summary.csv``, ``differences.csv`` and ``summary.md`` to ``out``, each whole or not at all.

    Args:
        run_dirs: folders with ``evaluation.json`` and ``results.jsonl``, also such as are still being written.
        first: the system that differences are taken to; by default the first one of the first run.
        max_bytes: size of the page above which audio is left out.

    Errors: ValueError names the file that cannot be read, or the argument; nothing is written then.
    """
    if max_bytes < 0:
        raise ValueError(f"max_bytes must be 0 or more, found {max_bytes}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the report")
    runs = read_runs(run_dirs)
    grid = tabulate(runs if first is None else begin_with(first, runs))
    title = title or f"Robustness evaluation: {', '.join(run.name for run in grid.runs.runs)}"
    texts = {"summary.md": markdown_text(grid, title), PAGE: page_text(grid, title, max_bytes=max_bytes)}
    write_table(out / "summary.csv", grid.lines, COLUMNS)
    write_table(out / "differences.csv", grid.differences, DIFFERENCE_COLUMNS)
    for name, text in texts.items():
        with written_whole(out / name) as path:
            path.write_text(text, encoding="utf-8")
    return grid
