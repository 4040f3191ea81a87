"""``python -m robust_asr.results.seed_means RUN...``: the mean over runs that differ in their seed alone, with one interval."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from robust_asr.results import Evaluation, Row, read_evaluation
from robust_asr.results.intervals import seed_mean_interval
from robust_asr.results.recount import recounted
from robust_asr.results.summary import counts, edit_counts
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


class SeedMean(NamedTuple):
    """WER in per cent of one part under one condition.

    Attributes:
        rates: one of each run.
        ci_low, ci_high: the 95 % interval of the mean over other utterances and other seeds: Student's interval of the runs'
            rates and the interval over utterances, each with the mean of its errors, added in squares
            (``intervals.seed_mean_interval``).
    """

    part: str
    condition: str
    value: float
    ci_low: float
    ci_high: float
    rates: list[float]
    n: int


def seed_means(evaluations: Sequence[Evaluation]) -> list[SeedMean]:
    """A mean for every part and condition of runs that hold one system each.

    Errors: ValueError names the run that holds several systems, the weights of another run, or other utterances or
    conditions than the first, and a run that stands alone: one seed says nothing about others.
    """
    if len(evaluations) < 2:
        raise ValueError(f"{evaluations[0].run_dir}: a mean over seeds takes two runs or more, found one")
    known: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        if len(evaluation.systems) != 1:
            names = ", ".join(evaluation.systems) or "none"
            raise ValueError(f"{evaluation.run_dir}: a mean over seeds takes runs of one system, found {names}")
        ((_, about),) = evaluation.systems.items()
        if about["hash"] in known:
            raise ValueError(f"{evaluation.run_dir}: is the same system as that of {known[about['hash']].run_dir}")
        known[about["hash"]] = evaluation
    first = evaluations[0]
    means = []
    for part in first.parts:
        for condition in first.conditions:
            if _rows(first, part, condition):
                means.append(_mean(part, condition, [_alike(first, other, part, condition) for other in evaluations]))
    return means


def _mean(part: str, condition: str, runs: list[list[Row]]) -> SeedMean:
    words = counts(runs[0], "words")
    edits = torch.stack([edit_counts(rows) for rows in runs])
    low, high = map(float, seed_mean_interval(edits, words))
    rates = (100 * edits.sum(1) / words.sum()).tolist()
    return SeedMean(part, condition, sum(rates) / len(rates), 100 * low, 100 * high, rates, len(words))


def _rows(evaluation: Evaluation, part: str, condition: str) -> list[Row]:
    (system,) = evaluation.systems
    return sorted(evaluation.select(system, condition, part), key=lambda row: row["id"])


def _alike(first: Evaluation, other: Evaluation, part: str, condition: str) -> list[Row]:
    """The rows of ``other``, if they are of the same utterances and settings as those of ``first``."""
    # The settings are compared and not the hashes, which hold the seed.
    if condition not in other.conditions or _settings(other, condition) != _settings(first, condition):
        raise ValueError(f"{other.run_dir}: holds no condition {condition} with the settings that {first.run_dir} has")
    expected, rows = _rows(first, part, condition), _rows(other, part, condition)
    if [(row["id"], row["reference"]) for row in rows] != [(row["id"], row["reference"]) for row in expected]:
        raise ValueError(
            f"{other.run_dir}: must hold the {len(expected)} utterances of the first run with their texts, for {part} under "
            f"{condition}; found {len(rows)}"
        )
    return rows


def _settings(evaluation: Evaluation, condition: str) -> Any:
    return evaluation.conditions[condition].get("description")


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.results.seed_means",
        description="Mean WER of runs that differ in their seed, its interval over utterances and seeds, and each run's.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of `python train.py test`, of one system")
    chosen = parser.parse_args(arguments)
    try:
        evaluations = [read_evaluation(run) for run in chosen.runs]
        means = seed_means(evaluations)
    except (ValueError, OSError) as error:
        leave(error)
    for evaluation in evaluations:
        if changed := recounted(evaluation.rows):
            say(f"{evaluation.run_dir}: warning: {changed}")
    for mean in means:
        each = ", ".join(f"{rate:.2f}" for rate in mean.rates)
        interval = f"{mean.value:.2f} % [{mean.ci_low:.2f}, {mean.ci_high:.2f}]"
        say(f"{mean.part}  {mean.condition}  {interval}, n = {mean.n}, each: {each}")


if __name__ == "__main__":
    main()
