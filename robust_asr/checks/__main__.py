"""``python -m robust_asr.checks RUN...``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from robust_asr.checks import Check, check_evaluation, lines, write_checks
from robust_asr.checks.rows.agreement import check_agreement
from robust_asr.checks.verdicts import VERDICTS
from robust_asr.results import Evaluation, read_evaluation
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status 1 where a check failed."""
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.checks",
        description="Check evaluations, each and against each other: what failed, what could not be checked, what passed.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of `python train.py test`, finished or not")
    parser.add_argument("--write", action="store_true", help="write checks.json into the folders, for their reports")
    chosen = parser.parse_args(arguments)
    try:
        evaluations = {run: read_evaluation(run) for run in chosen.runs}
        checks = [_checked(run, evaluation, write=chosen.write) for run, evaluation in evaluations.items()]
    except (ValueError, OSError) as error:
        leave(error)
    checks.append([check for _, check in check_agreement(evaluations)])
    if checks[-1]:
        say("between them:", *lines(checks[-1], *VERDICTS))
    sys.exit(int(any(check.verdict == "fail" for of_run in checks for check in of_run)))


def _checked(run: str, evaluation: Evaluation, *, write: bool) -> list[Check]:
    checks = check_evaluation(evaluation)
    if write:
        write_checks(evaluation.run_dir, checks)
    say(f"{run}:", *(lines(checks, *VERDICTS) or ["no results yet"]))
    return checks


if __name__ == "__main__":
    main()
