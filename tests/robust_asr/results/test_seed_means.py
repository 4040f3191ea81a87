"""The mean over seeds against counts by hand; runs that do not belong together are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_asr.results import Evaluation
from robust_asr.results.intervals import rate_interval
from robust_asr.results.seed_means import main, seed_means
from tests.robust_asr.report.example import CONDITIONS, row

REFERENCES = ["ONE TWO THREE FOUR", "GO HOME", "STOP"]


def run(name: str, *hypotheses: str, systems: tuple[str, ...] = ("a",)) -> Evaluation:
    conditions = {"clean": {"hash": f"clean of {name}", "columns": CONDITIONS["clean"], "description": "Clean"}}
    rows = tuple(
        row(system, "clean", "test", str(number), reference, hypothesis)
        for system in systems
        for number, (reference, hypothesis) in enumerate(zip(REFERENCES, hypotheses, strict=False))
    )
    described = {system: {"hash": f"{system} of {name}", "columns": {}} for system in systems}
    return Evaluation(Path(name), described, conditions, {"test": {"num_utterances": 3}}, rows)


def test_mean_of_two_runs_by_hand() -> None:
    # 1 of 7 words wrong, then 3 of 7.
    (mean,) = seed_means([run("0", "ONE TWO THREE FIVE", "GO HOME", "STOP"), run("1", "ONE TWO", "GO HOME", "STEP")])
    assert mean.rates == pytest.approx([100 / 7, 300 / 7]) and mean.value == pytest.approx(200 / 7)
    assert (mean.part, mean.condition, mean.n) == ("test", "clean", 3)
    # Of two rates the standard error is half of their distance, t(1) = 12.706; the utterances add to it in squares.
    over_utterances = rate_interval(torch.tensor([1.5, 0, 0.5]), torch.tensor([4.0, 2, 1]))[1]
    expected = np.hypot(12.706 * 100 / 7, 100 * float(over_utterances) - mean.value)
    assert (mean.ci_low, mean.ci_high) == pytest.approx((0, mean.value + expected), abs=0.01)


def test_rows_in_another_order_are_paired_by_their_utterance() -> None:
    first, other = (run(name, "ONE TWO THREE FIVE", "GO HOME", "STOP") for name in "01")
    assert seed_means([first, replace(other, rows=other.rows[::-1])])[0].rates == pytest.approx([100 / 7] * 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run("other", "ONE TWO", "GO"), "other: must hold the 3 utterances .* found 2"),
        (run("other", *REFERENCES, systems=("a", "b")), "other: .* takes runs of one system, found a, b"),
        (replace(run("other", *REFERENCES), conditions={}), "other: holds no condition clean"),
        (
            replace(run("other", *REFERENCES), conditions={"clean": {"description": "Noise"}}),
            "other: holds no condition clean",
        ),
        (run("first", *REFERENCES), "first: is the same system as that of first"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(other: Evaluation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_means([run("first", *REFERENCES), other])


def test_one_run_is_no_mean() -> None:
    with pytest.raises(ValueError, match="only: a mean over seeds takes two runs or more, found one"):
        seed_means([run("only", *REFERENCES)])


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2 and str(tmp_path) in capsys.readouterr().err
