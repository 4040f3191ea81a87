"""``python -m robust_asr.report RUN... --out DIR``"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from robust_asr.report import MAX_BYTES, PAGE, report
from robust_asr.report.terminal import terminal_text
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.report",
        description="One self-contained page of one or several evaluations, with the same tables as CSV and Markdown.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of `python train.py test`, finished or not")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for index.html, summary.csv, differences.csv, summary.md"
    )
    parser.add_argument("--title", help="title of the page")
    parser.add_argument(
        "--first", metavar="SYSTEM", help="system that differences are taken to (default: the first of the first run)"
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=MAX_BYTES / 1e6,
        help="size of the page above which audio is left out (default %(default)g)",
    )
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.megabytes < 1e6:
        parser.error(f"--megabytes must be 0 or more, found {chosen.megabytes}")
    try:
        max_bytes = int(chosen.megabytes * 1e6)
        grid = report(chosen.runs, chosen.out, title=chosen.title, first=chosen.first, max_bytes=max_bytes)
    except (ValueError, OSError) as error:
        leave(error)
    # A terminal of few characters shows a question mark, not a traceback.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    say(*terminal_text(grid).split("\n"), "", f"The report is {Path(chosen.out) / PAGE}")


if __name__ == "__main__":
    main()
