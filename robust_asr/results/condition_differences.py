"""``python -m robust_asr.results.condition_differences RUN --minus CONDITION --out FILE``: what one condition costs beyond another.

``differences.csv`` compares systems under one condition; this compares the conditions of one system, such as a stronger attack
with a weaker one, on the same utterances.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_asr.results import Evaluation, read_evaluation
from robust_asr.results.summary import DIFFERENCE_COLUMNS, is_attack, paired_difference, write_table
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


def condition_differences(evaluation: Evaluation, baseline: str) -> list[dict[str, Any]]:
    """WER of each system under each condition minus its WER under ``baseline``, paired, under ``DIFFERENCE_COLUMNS``.

    The column ``baseline`` reads "SYSTEM under CONDITION", so that a claim can name the line.

    Errors: ValueError names the conditions that there are.
    """
    if baseline not in evaluation.conditions:
        known = ", ".join(evaluation.conditions) or "none"
        raise ValueError(f"{evaluation.run_dir}: holds no condition {baseline!r}, found {known}")
    lines = []
    for part in evaluation.parts:
        for condition, about in evaluation.conditions.items():
            for system in evaluation.systems if condition != baseline else ():
                known = {row["id"]: row for row in evaluation.select(system, baseline, part)}
                rows = [row for row in evaluation.select(system, condition, part) if row["id"] in known]
                if rows:
                    value, low, high = paired_difference(rows, [known[row["id"]] for row in rows])
                    metric = "GT_WER" if is_attack(about) else "WER"
                    names = (condition, part, metric, system, f"{system} under {baseline}")
                    cells = (*names, value, "% absolute", len(rows), low, high)
                    lines.append(dict(zip(DIFFERENCE_COLUMNS, cells, strict=True)))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.results.condition_differences",
        description="Paired differences between the conditions of each system, as a CSV table.",
    )
    parser.add_argument("run", metavar="RUN", help="run folder of `python train.py test`")
    parser.add_argument("--minus", required=True, metavar="CONDITION", help="the condition that is subtracted")
    parser.add_argument("--out", required=True, metavar="FILE", help="the CSV table to write")
    chosen = parser.parse_args(arguments)
    try:
        lines = condition_differences(read_evaluation(chosen.run), chosen.minus)
        write_table(Path(chosen.out), lines, DIFFERENCE_COLUMNS)
    except (ValueError, OSError) as error:
        leave(error)
    say(f"{len(lines)} differences are in {chosen.out}")


if __name__ == "__main__":
    main()
