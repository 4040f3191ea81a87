"""Systems over many runs, ranked by their breaking points: a page, a CSV file and a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_asr.leaderboard.page import page_text
from robust_asr.leaderboard.ranking import COLUMNS, Table, rank
from robust_asr.report.runs import read_each
from robust_asr.results.summary import write_table
from robust_asr.storage.files import written_whole

PAGE, CSV = "index.html", "leaderboard.csv"


def leaderboard(run_dirs: Sequence[str | Path], out: str | Path, *, title: str = "Leaderboard") -> list[Table]:
    """Write ``index.html`` and ``leaderboard.csv`` to ``out``, each whole or not at all. Returns the tables.

    Errors: ValueError names the file that cannot be read, or the run that holds no breaking point; nothing is written then.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the leaderboard")
    tables = rank(read_each(run_dirs))
    text = page_text(tables, title)
    lines = [line for number, table in enumerate(tables, start=1) for line in table.lines(number)]
    write_table(out / CSV, lines, COLUMNS)
    with written_whole(out / PAGE) as path:
        path.write_text(text, encoding="utf-8")
    return tables
