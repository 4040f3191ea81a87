"""``python -m robust_asr.leaderboard RUN... --out FOLDER``"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from robust_asr.leaderboard import PAGE, leaderboard
from robust_asr.leaderboard.page import HEAD, cells, heading, separations
from robust_asr.leaderboard.ranking import Table
from robust_asr.report.numbers import MINUS
from robust_asr.report.terminal import aligned
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, printable, say


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.leaderboard",
        description="Systems of many evaluations, ranked by the SNR at which they break; what cannot be compared stands apart.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder of `python train.py test` with a breaking point"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for index.html and leaderboard.csv")
    parser.add_argument("--title", default="Leaderboard", help="title of the page (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        tables = leaderboard(chosen.runs, chosen.out, title=chosen.title)
    except (ValueError, OSError) as error:
        leave(error)
    for number, ranked in enumerate(tables, start=1):
        say(*_lines(ranked, number), "")
    say(*separations(tables), f"The leaderboard is {Path(chosen.out) / PAGE}")


def _lines(ranked: Table, number: int) -> list[str]:
    rows = [HEAD, *(cells(entry, place) for place, entry in enumerate(ranked.entries, start=1))]
    # A minus of the page is no character of every terminal.
    plain = [[printable(cell).replace(MINUS, "-") for cell in row] for row in rows]
    return [heading(ranked, number), *aligned(plain, texts=2)]


if __name__ == "__main__":
    main()
