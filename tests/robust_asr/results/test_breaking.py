"""Medians of breaking points: against their definition, with utterances censored at either end, and as lines of a summary."""

from __future__ import annotations

import csv
import math
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from robust_asr.results import read_evaluation
from robust_asr.results.breaking import (
    AMPLITUDE,
    SNR,
    BreakingPoints,
    Span,
    breaking_lines,
    breaking_points,
    broken_shares,
    median,
    paired_snr,
)
from robust_asr.results.claims import read_claims, table
from robust_asr.results.csv_cells import decode
from robust_asr.results.intervals import median_ranks
from robust_asr.results.summary import COLUMNS, DIFFERENCE_COLUMNS, differences, headline, summarize, write_summary
from robust_asr.types import Broken
from tests.robust_asr.report.breaking_example import write_breaking
from tests.robust_asr.report.example import SYSTEMS, row


def exact(*values: float) -> list[Span]:
    return [Span(value, value) for value in values]


def broken(amplitude: float, snr: float | None, outcome: Broken = Broken.WITHIN, **more: Any) -> dict[str, Any]:
    fields = {"breaking": str(outcome), "breaking_amplitude": amplitude, "breaking_snr_db": snr, "budgets_tried": 6}
    return row("s", "breaking", "test-clean", f"u{amplitude}{snr}", "A B", "A C", **fields, forwards=300, **more)


@pytest.mark.parametrize(
    ("num", "ranks"), [(5, None), (6, (1, 6)), (10, (2, 9)), (24, (7, 18)), (50, (18, 33)), (100, (40, 61))]
)
def test_ranks_are_those_of_the_tables(num: int, ranks: tuple[int, int] | None) -> None:
    assert median_ranks(num) == ranks
    if ranks:
        covered = sum(math.comb(num, k) for k in range(ranks[0], ranks[1])) / 2**num
        narrower = sum(math.comb(num, k) for k in range(ranks[0] + 1, ranks[1] - 1)) / 2**num
        assert covered >= 0.95 > narrower


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    chance, held = random.Random(0), 0
    for _ in range(2000):
        found = median(exact(*(chance.expovariate(1.0) for _ in range(24))))
        held += found.low <= math.log(2) <= found.high
    assert 0.95 <= held / 2000 <= 0.99


def test_the_median_of_exact_numbers() -> None:
    found = median(exact(3.0, 1.0, 2.0))
    assert found.value == Span(2.0, 2.0) and (found.low, found.high, found.n) == (-math.inf, math.inf, 3)
    assert median(exact(4.0, 1.0, 2.0, 3.0)).value == Span(2.5, 2.5)
    found = median(exact(*map(float, range(1, 25))))
    assert (found.value.low, found.low, found.high) == (12.5, 7.0, 18.0)
    assert median([]) is None


def test_censored_numbers_leave_the_median_where_fewer_than_half_are_at_one_end() -> None:
    above, below = Span(9.0, math.inf), Span(-math.inf, 0.0)
    assert str(median([*exact(1, 2, 3), above, above]).value) == "3.0"
    assert str(median([*exact(1, 2, 3), below, below]).value) == "1.0"
    assert str(median([*exact(1, 2), above, above, above]).value) == "> 9.0"
    assert str(median([*exact(1, 2), below, below, below]).value) == "< 0.0"
    assert str(median([*exact(1, 2), above, above]).value) == "> 5.5"
    assert str(median([above, below]).value) == "unknown"
    assert str(Span(5.02, 5.04)) == "5.0" and not Span(5.02, 5.04).exact
    # Two utterances censored at an SNR of their own: the median lies between what the two may be.
    assert str(median([*exact(1, 2, 30), Span(-math.inf, 20), Span(-math.inf, 25)]).value) == "1.0 to 20.0"
    # What they may be cannot matter here.
    assert str(median([*exact(10, 20, 30), Span(-math.inf, 5), Span(-math.inf, 7)]).value) == "10.0"
    limits = median([*exact(*range(14)), *[above] * 10])
    assert (limits.low, limits.high) == (6.0, math.inf)


def test_rows_become_points() -> None:
    rows = [
        broken(0.01, 20.0),
        broken(0.1, 3.0, Broken.BEYOND),
        broken(0.0001, 50.0, Broken.SMALLEST),
        broken(0.0001, 48.0, Broken.UNPERTURBED),
        broken(0.001, None),
        row("s", "breaking", "test-clean", "wordless", "", "", status="refused"),
    ]
    points = breaking_points(rows)
    assert (points.unperturbed, points.smallest, points.beyond, points.excluded, points.n, points.below) == (
        1,
        1,
        1,
        1,
        5,
        2,
    )
    assert points.levels[0] == Span(-40.0, -40.0) and points.levels[1] == Span(-20.0, math.inf)
    assert points.snrs == (Span(20, 20), Span(-math.inf, 3), Span(50, math.inf), Span(48, math.inf))
    assert broken_shares(points.levels) == [(-80.0, 0.4), (-60.0, 0.6), (-40.0, 0.8)]
    assert broken_shares(breaking_points(rows[1:2]).levels) == []


def test_lines_of_a_cell() -> None:
    rows = [broken(0.001 * 2**place, 40.0 - 6 * place) for place in range(7)]
    lines = {line["metric"]: line for line in breaking_lines(rows)}
    assert lines[SNR] == {"metric": SNR, "value": 22.0, "unit": "dB", "n": 7, "ci_low": 4.0, "ci_high": 40.0}
    assert lines[AMPLITUDE]["value"] == pytest.approx(0.008) and lines[AMPLITUDE]["unit"] == "amplitude"
    assert (lines[AMPLITUDE]["ci_low"], lines[AMPLITUDE]["ci_high"]) == pytest.approx((0.001, 0.064))
    assert lines["not_broken"]["value"] == 0 and lines["success_rate"]["value"] == 100
    lines = {
        line["metric"]: line for line in breaking_lines([broken(0.1, 3.0 + place, Broken.BEYOND) for place in range(7)])
    }
    assert lines[SNR]["value"] == "< 6" and lines[AMPLITUDE]["value"] == "> 0.1" and lines["not_broken"]["value"] == 100
    assert (lines[AMPLITUDE]["ci_low"], lines[AMPLITUDE]["ci_high"]) == (pytest.approx(0.1), math.inf)
    lines = {line["metric"]: line for line in breaking_lines([broken(0.01, 9.0, Broken.UNPERTURBED)])}
    assert lines[SNR]["value"] == "> 9" and lines[AMPLITUDE]["value"] == "< 0.01" and lines[AMPLITUDE]["ci_low"] == 0
    assert breaking_lines([row("s", "c", "p", "u", "", "", status="refused")]) == []


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_breaking(tmp_path_factory.mktemp("breaking") / "run")


def test_a_summary_has_breaking_points_and_no_error_rates_of_them(run_dir: Path) -> None:
    evaluation = read_evaluation(run_dir)
    lines = [line for line in summarize(evaluation) if line["condition"] == "breaking"]
    assert {line["metric"] for line in lines} >= {SNR, AMPLITUDE, "not_broken", "success_rate"}
    assert not {"WER", "GT_WER", "CER"} & {line["metric"] for line in lines}
    assert all(line["forwards"] == 300 for line in lines)
    (shown,) = [line for line in headline(evaluation).split("\n") if "breaking" in line]
    assert " dB [" in shown and "%" not in shown
    write_summary(evaluation)
    with (run_dir / "summary.csv").open(newline="") as file:
        written = [line for line in csv.DictReader(file) if line["metric"] == SNR]
    assert list(written[0]) == COLUMNS and len(written) == len(SYSTEMS)
    medians = [decode(line["value"]) for line in written]
    assert medians[0] > medians[1] and written[2]["note"] == ""


CLAIMS = "claim,results,condition,system,baseline,direction,margin\n"


def test_differences_of_breaking_points_can_be_claimed(run_dir: Path) -> None:
    evaluation = read_evaluation(run_dir)
    lines = [line for line in differences(evaluation) if line["condition"] == "breaking"]
    assert {(line["baseline"], line["system"]) for line in lines} == set(combinations(SYSTEMS, 2))
    for line in lines:
        sides = [evaluation.select(line[side], "breaking", line["eval_set"]) for side in ("system", "baseline")]
        found = paired_snr(*sides)
        assert found.value.low <= line["value"] <= found.value.high
        assert (line["ci_low"], line["ci_high"]) == (found.low, found.high)
        assert (line["metric"], line["unit"]) == (SNR, "dB")
    write_summary(evaluation)
    claimed = [f"later,differences.csv,breaking,{line['system']},{line['baseline']},lower,1\n" for line in lines]
    (run_dir / "claims.csv").write_text(CLAIMS + "".join(claimed))
    claims = read_claims(run_dir / "claims.csv")
    assert claims["later"][0].verdict == "holds" and "] dB" in table(claims)


def test_limits_that_censored_utterances_leave_open_decide_nothing(tmp_path: Path) -> None:
    lines = f"breaking,test,{SNR},b,a,-9.0,dB,4,-inf,inf\nbreaking,test,{SNR},c,a,< -9.0,dB,9,-inf,-3.0\n"
    (tmp_path / "differences.csv").write_text(",".join(DIFFERENCE_COLUMNS) + "\n" + lines)
    claimed = "".join(f"{name},differences.csv,breaking,{name},a,lower,1\n" for name in "bc")
    (tmp_path / "claims.csv").write_text(CLAIMS + claimed)
    found = {claim: line.verdict for claim, (line,) in read_claims(tmp_path / "claims.csv").items()}
    assert found == {"b": "undecidable", "c": "holds"}


def test_pairs_are_compared_within_what_their_ends_allow() -> None:
    ours = [broken(0.01, 20.0), broken(0.02, 10.0, Broken.BEYOND), broken(0.03, 5.0)]
    theirs = [{**each, "breaking_snr_db": each["breaking_snr_db"] + 4} for each in ours[:2]]
    found = paired_snr(ours, theirs)
    # What is known of the first pair is -4; the second is open on both sides.
    assert found.n == 2 and str(found.value) == "unknown"
    assert str(paired_snr([*ours[:1]] * 2 + ours[1:2], theirs).value) == "-4.0"
    assert str(paired_snr(ours[:1], [{**theirs[1], "id": ours[0]["id"]}]).value) == "> 6.0"
    assert paired_snr(ours, []) is None


def test_points_of_an_empty_cell() -> None:
    assert breaking_points([]) == BreakingPoints((), (), 0, 0, 0, 0) and breaking_lines([]) == []
