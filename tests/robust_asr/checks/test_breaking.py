"""The checks of breaking points: each perturbation fits its own budget, and no gain in words is asked of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.attacks.standard import Standard
from robust_asr.checks import check_evaluation
from robust_asr.checks.live.system import check_attack, shortened
from robust_asr.checks.rows.budgets import WITHIN, check_budgets
from robust_asr.checks.rows.transcripts import EMPTIER, check_transcripts
from robust_asr.results import Evaluation, read_evaluation
from robust_asr.threat import Linf
from tests.listeners import five_words
from tests.robust_asr.attacks.oracles import seeds_of, spoken
from tests.robust_asr.checks.table import edited, verdicts
from tests.robust_asr.report.breaking_example import write_breaking


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Each perturbation is half a decibel inside its own budget."""
    found = read_evaluation(write_breaking(tmp_path_factory.mktemp("breaking") / "run", num_utterances=6))
    inside = {
        "snr_db": lambda row: row["breaking_snr_db"] + 0.5,
        "size": lambda row: 0.99 * row["breaking_amplitude"],
    }
    return edited(found, lambda row: "breaking" in row, **inside)


def test_a_perturbation_beyond_its_own_budget_is_red(evaluation: Evaluation) -> None:
    assert {name for _, name in verdicts(check_budgets(evaluation), WITHIN)["pass"]} >= {"breaking"}
    one = evaluation.select("baseline", "breaking", "test-clean")[0]["id"]
    for change in (
        {"size": lambda row: 1.01 * row["breaking_amplitude"]},
        {"snr_db": lambda row: row["breaking_snr_db"] - 0.1},
    ):
        wrong = edited(
            evaluation, lambda row: "breaking" in row and (row["system"], row["id"]) == ("baseline", one), **change
        )
        assert verdicts(check_budgets(wrong), WITHIN)["fail"] == {("baseline", "breaking")}


def test_errors_at_different_budgets_are_not_compared(evaluation: Evaluation) -> None:
    asked = [check.condition for check in check_transcripts(evaluation) if check.name == EMPTIER.name]
    assert "pgd7-0.001" in asked and "breaking" not in asked
    assert all(check.name for check in check_evaluation(replace(evaluation, run_dir=Path("absent"))))


def test_live_checks_run_the_attack_that_is_repeated() -> None:
    system, batch = five_words(), spoken(2, seed=5)
    goal = Targeted(PhraseList(["YES", "NO NO"]))
    for attack, kind in (
        (Standard(Linf(0.01), forwards=60), PGD),
        (PGD(Linf(0.01), goal=goal, num_iterations=20), PGD),
        (MatchedNoise(Linf(0.01), distribution="signs"), MatchedNoise),
    ):
        breaking = BreakingPoint(attack, 0.001, resolution_db=5)
        assert isinstance(shortened(breaking), kind)
        checks = check_attack(system, breaking, batch, seeds=seeds_of(batch))
        assert checks and not [check for check in checks if check.verdict == "fail"]
