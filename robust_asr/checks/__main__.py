"""``python -m robust_asr.checks RUN...``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from robust_asr.alignment import printable
from robust_asr.checks import check_evaluation, lines, write_checks
from robust_asr.results import read_evaluation


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status 1 where a check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.checks",
        description="Check evaluations: what failed, what could not be checked, and what passed.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of `python train.py test`, finished or not")
    parser.add_argument("--write", action="store_true", help="write checks.json into the folders, for their reports")
    chosen = parser.parse_args(arguments)
    failed = False
    try:
        for run in chosen.runs:
            failed |= _check(run, write=chosen.write)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(str(error))}")
    sys.exit(int(failed))


def _check(run: str, *, write: bool) -> bool:
    evaluation = read_evaluation(run)
    checks = check_evaluation(evaluation)
    if write:
        write_checks(evaluation.run_dir, checks)
    print(printable(f"{run}:"), *(lines(checks, "fail", "not run", "pass") or ["no results yet"]), sep="\n")
    return any(check.verdict == "fail" for check in checks)


if __name__ == "__main__":
    main()
