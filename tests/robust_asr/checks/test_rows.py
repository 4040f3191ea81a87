"""On honest rows nothing fails; each planted fault trips the check that is named for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from robust_asr.attacks.noise import Clean, MatchedNoise
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.square import Square
from robust_asr.attacks.standard import Standard
from robust_asr.checks import check_rows, lines
from robust_asr.checks.rows.attackers import KNOWLEDGE, UNBOUNDED
from robust_asr.checks.rows.budgets import CHANGED, USED, WHOLE, WITHIN
from robust_asr.checks.rows.controls import MOVES, NOISE
from robust_asr.checks.rows.gradients import UNMASKED
from robust_asr.checks.rows.optimizers import BUDGET, DRAWS, ITERATIONS, SPENT, SUCCEEDS
from robust_asr.checks.rows.records import EVERY_UTTERANCE, OWN_ROWS, OWN_TEXT, SAME_RECORDING, SAME_TEXT
from robust_asr.checks.rows.saved_audio import SAVED
from robust_asr.checks.rows.transcripts import EMPTIER, HEARS
from robust_asr.checks.verdicts import Question
from robust_asr.metrics import count_errors
from robust_asr.results import Evaluation, Row, audio_path
from robust_asr.threat import SNR, Linf
from tests.listeners import five_words
from tests.robust_asr.checks import faults
from tests.robust_asr.checks.honest import PART, evaluated, spoken
from tests.robust_asr.checks.table import FIRST, GOAL, PLAIN, cell, edited, verdicts, without_first


def test_nothing_fails_on_an_honest_evaluation(honest: Evaluation) -> None:
    checks = check_rows(honest)
    assert lines(checks, "fail") == []
    passed = {check.name for check in checks if check.verdict == "pass"}
    questions = (
        EVERY_UTTERANCE,
        SAME_TEXT,
        SAME_RECORDING,
        OWN_ROWS,
        OWN_TEXT,
        HEARS,
        EMPTIER,
        WITHIN,
        CHANGED,
        USED,
        WHOLE,
        SAVED,
        UNMASKED,
    )
    stronger = (ITERATIONS, BUDGET, SUCCEEDS, DRAWS, SPENT, MOVES, NOISE, KNOWLEDGE, UNBOUNDED)
    assert {question.name for question in (*questions, *stronger)} <= passed


def test_comparisons_are_those_that_differ_in_one_thing(honest: Evaluation) -> None:
    checks = check_rows(honest)
    both = ("plain", "smoothed")
    assert verdicts(checks, ITERATIONS)["pass"] == {
        (system, condition) for system in both for condition in ("pgd7 .02", "pgd20 .02", "far towards .02")
    }
    assert verdicts(checks, BUDGET)["pass"] == {(system, "pgd7 .02") for system in both}
    assert verdicts(checks, DRAWS)["pass"] == {(system, "eot4 .02") for system in both}
    assert verdicts(checks, SPENT)["pass"] == {("smoothed", "eot4 .02")}
    assert verdicts(checks, KNOWLEDGE)["pass"] == {(system, "unaware .02") for system in both}


def test_an_attack_that_climbs_away_from_another_text_is_not_judged_by_the_loss_of_the_reference(
    honest: Evaluation,
) -> None:
    """A larger budget with less loss fails, unless the loss is not the one that the attack moved."""
    weaker = edited(honest, cell(*PLAIN), loss=lambda row: 0.01 * row["loss"])
    assert verdicts(check_rows(weaker), BUDGET)["fail"] == {PLAIN}
    for climbed, fails in (("transcript", set()), ("both", set()), ("reference", {PLAIN}), (None, {PLAIN})):
        marked = edited(weaker, cell(*PLAIN), climbed=climbed)
        assert verdicts(check_rows(marked), BUDGET)["fail"] == fails


def test_what_is_missing_is_named(honest: Evaluation) -> None:
    kept = {name: honest.conditions[name] for name in ("clean", "pgd7 .02")}
    rows = tuple(row for row in honest.rows if row["condition"] in kept)
    small = edited(replace(honest, conditions=kept, rows=rows), lambda row: row["id"] < "tones-1-005", success=False)
    checks = check_rows(small)
    missing = {check.name: check.detail for check in checks if check.verdict == "not run"}
    assert missing.keys() == {question.name for question in (ITERATIONS, BUDGET, DRAWS, NOISE, KNOWLEDGE, UNBOUNDED)}
    assert "MatchedNoise" in missing[NOISE.name] and "Linf 0.02" in missing[NOISE.name]
    assert lines(checks, "fail") == []


def test_noise_alone_is_not_asked_about_attacks(honest: Evaluation) -> None:
    kept = {name: honest.conditions[name] for name in ("clean", "gaussian")}
    rows = tuple(row for row in honest.rows if row["condition"] in kept)
    assert {check.verdict for check in check_rows(replace(honest, conditions=kept, rows=rows))} == {"pass"}


def test_a_record_without_descriptions_is_checked_as_far_as_it_goes(honest: Evaluation) -> None:
    bare = {name: {"hash": about["hash"], "columns": about["columns"]} for name, about in honest.conditions.items()}
    checks = check_rows(replace(honest, conditions=bare))
    assert lines(checks, "fail") == [] and verdicts(checks, NOISE)["pass"]
    odd = {name: {**about, "description": {"class_path": 3, "init_args": []}} for name, about in bare.items()}
    assert check_rows(replace(honest, conditions=odd)) == checks
    assert check_rows(replace(honest, rows=())) == []


def swapped(row: Row) -> str:
    """The reference of the fourth and of the last utterance, each as the other's: they have four words, and none in common."""
    return {FAR[0]: FAR[1], FAR[1]: FAR[0]}.get(row["reference"], row["reference"])


def far_apart() -> tuple[str, str]:
    texts = list(dict.fromkeys(spoken(10, seed=1).texts))
    pairs = ((first, second) for first in texts for second in texts)
    return next(pair for pair in pairs if min(sum(errors_between(*pair)), sum(errors_between(*pair[::-1]))) >= 3)


def errors_between(reference: str, hypothesis: str) -> tuple[int, int, int]:
    count = count_errors([reference], [hypothesis])
    return count["insertions"], count["deletions"], count["substitutions"]


FAR = far_apart()


def babbling(evaluation: Evaluation) -> Evaluation:
    """The first system hears nothing right, and as many words again that nobody said."""
    wrong = {"deletions": 0, "substitutions": lambda row: row["words"], "insertions": lambda row: row["words"]}
    return edited(evaluation, cell("plain", "pgd7 .02"), hypothesis=lambda row: f"{row['id']} X", **wrong)


def silent(evaluation: Evaluation) -> Evaluation:
    wrong = {"deletions": lambda row: row["words"], "substitutions": 0, "insertions": 0}
    return edited(evaluation, cell("smoothed", "pgd7 .02"), hypothesis="", **wrong)


def same_word(evaluation: Evaluation) -> Evaluation:
    wrong = {"deletions": lambda row: row["words"] - 1, "substitutions": 1, "insertions": 0}
    return edited(evaluation, cell("smoothed", "pgd7 .02"), hypothesis="X", **wrong)


ROW_FAULTS: dict[str, tuple[Question, tuple[str, str], Callable[[Evaluation], Evaluation]]] = {
    "dropped utterance": (
        EVERY_UTTERANCE,
        PLAIN,
        without_first,
    ),
    "utterance twice": (
        EVERY_UTTERANCE,
        PLAIN,
        lambda e: replace(e, rows=(*e.rows, next(row for row in e.rows if cell(*PLAIN)(row)))),
    ),
    "texts swapped in one cell": (SAME_TEXT, PLAIN, lambda e: edited(e, cell(*PLAIN), reference=swapped)),
    "another recording": (
        SAME_RECORDING,
        PLAIN,
        lambda e: edited(e, cell(*PLAIN), hashes=lambda row: {**row["hashes"], "data": "0"}),
    ),
    "stale weights": (
        OWN_ROWS,
        PLAIN,
        lambda e: edited(
            e,
            lambda row: cell(*PLAIN)(row) and row["id"] == FIRST,
            hashes=lambda row: {**row["hashes"], "system": "0"},
        ),
    ),
    "stale settings": (
        OWN_ROWS,
        PLAIN,
        lambda e: edited(e, cell(*PLAIN), hashes=lambda row: {**row["hashes"], "condition": "0"}),
    ),
    "noise of another SNR": (
        WITHIN,
        ("plain", "noise 15 dB"),
        lambda e: edited(e, cell("plain", "noise 15 dB"), snr_db=lambda row: row["snr_db"] + 3),
    ),
    "attack beyond its SNR": (
        WITHIN,
        ("plain", "pgd 15 dB"),
        lambda e: edited(e, cell("plain", "pgd 15 dB"), snr_db=14.9),
    ),
    "attack beyond its eps": (WITHIN, PLAIN, lambda e: edited(e, cell(*PLAIN), size=0.0201)),
    "attack far inside its ball": (USED, PLAIN, lambda e: edited(e, cell(*PLAIN), size=0.002)),
    "nothing perturbed": (CHANGED, PLAIN, lambda e: edited(e, cell(*PLAIN), snr_db=None, success=False)),
    "nothing attacked": (CHANGED, PLAIN, lambda e: edited(e, cell(*PLAIN), snr_db=None, status="refused")),
    "a gradient masked on one utterance": (
        UNMASKED,
        PLAIN,
        lambda e: edited(e, lambda row: cell(*PLAIN)(row) and row["id"] == FIRST, status="masked gradient"),
    ),
    "fewer draws than named": (
        SPENT,
        ("smoothed", "eot4 .02"),
        lambda e: edited(e, cell("smoothed", "eot4 .02"), forwards=lambda row: row["iterations"]),
    ),
    "draws that weaken": (
        DRAWS,
        ("plain", "eot4 .02"),
        lambda e: edited(e, cell("plain", "eot4 .02"), loss=lambda row: 0.8 * row["loss"]),
    ),
    "iterations that weaken": (
        ITERATIONS,
        ("plain", "pgd20 .02"),
        lambda e: edited(e, cell("plain", "pgd20 .02"), loss=lambda row: 0.4 * row["loss"]),
    ),
    "a budget that weakens": (BUDGET, PLAIN, lambda e: edited(e, cell(*PLAIN), loss=lambda row: 0.01 * row["loss"])),
    "a budget that succeeds less": (
        SUCCEEDS,
        PLAIN,
        lambda e: edited(
            e,
            lambda row: row["system"] == "plain" and row["condition"] in ("pgd7 .001", "pgd7 .02"),
            success=lambda row: row["condition"] == "pgd7 .001",
        ),
    ),
    "an attack that does nothing": (
        NOISE,
        ("plain", "pgd 15 dB"),
        lambda e: edited(e, cell("plain", "pgd 15 dB"), loss=lambda row: 0.01 * row["loss"]),
    ),
    "the stronger stranger": (
        KNOWLEDGE,
        ("plain", "unaware .02"),
        lambda e: edited(e, cell("plain", "unaware .02"), loss=lambda row: 9 * row["loss"]),
    ),
    "a deaf system": (
        HEARS,
        ("smoothed", "clean"),
        lambda e: edited(e, cell("smoothed", "clean"), hypothesis=lambda row: "" if row["id"] > FIRST else "NO"),
    ),
    "a gain from silence": (EMPTIER, ("smoothed", "pgd7 .02"), lambda e: silent(babbling(e))),
    "a gain from one transcript for all": (EMPTIER, ("smoothed", "pgd7 .02"), lambda e: same_word(babbling(e))),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_a_fault_in_rows_trips_its_check_and_no_other_cell(honest: Evaluation, fault: str) -> None:
    question, place, plant = ROW_FAULTS[fault]
    checks = check_rows(plant(honest))
    assert verdicts(checks, question)["fail"] == {place}
    (failed,) = (check for check in checks if check.verdict == "fail" and check.name == question.name)
    assert failed.detail.endswith(question.failure) and failed.value != ""


def test_a_budget_below_the_noise_of_the_system_tells_nothing(honest: Evaluation) -> None:
    def same(row: Row) -> bool:
        return row["system"] == "smoothed"

    def moved(row: Row) -> float:
        """By chance: half of the utterances up, half of them down, by another draw in each condition."""
        return 5 + (-1) ** int(row["id"][-3:]) * {"clean": 0, "noise .001": 0.1, "pgd7 .001": -0.1}[row["condition"]]

    small = tuple(row for row in honest.rows if row["condition"] in ("clean", "pgd7 .001", "noise .001"))
    kept = {name: about for name, about in honest.conditions.items() if name in {row["condition"] for row in small}}
    few = edited(replace(honest, conditions=kept, rows=small), same, loss=moved)
    found = verdicts(check_rows(few), NOISE)
    assert found["not run"] == {("smoothed", "pgd7 .001")} and not found["fail"]
    matters = edited(few, cell("smoothed", "noise .001"), loss=lambda row: row["loss"] + 0.2)
    assert verdicts(check_rows(matters), NOISE)["fail"] == {("smoothed", "pgd7 .001")}
    loud = {name: {**about, "columns": {**about["columns"], "sigma": 0.0005}} for name, about in few.systems.items()}
    assert ("smoothed", "pgd7 .001") in verdicts(check_rows(replace(few, systems=loud)), NOISE)["fail"]


def test_texts_swapped_everywhere_are_noticed_by_what_is_heard(honest: Evaluation) -> None:
    swap = edited(honest, lambda row: row["reference"] in FAR, reference=swapped)
    rows = []
    for row in swap.rows:
        heard = swapped(row) if row["reference"] in FAR and row["condition"] == "clean" else row["hypothesis"]
        errors = dict(
            zip(("insertions", "deletions", "substitutions"), errors_between(row["reference"], heard), strict=True)
        )
        rows.append({**row, "hypothesis": heard, **errors})
    checks = check_rows(replace(honest, rows=tuple(rows)))
    assert verdicts(checks, OWN_TEXT)["fail"] == {("plain", "clean"), ("smoothed", "clean")}
    assert not verdicts(checks, SAME_TEXT)["fail"]


def test_an_attack_that_loses_without_a_bound_fails(honest: Evaluation) -> None:
    about = honest.conditions["pgd7 .02"]
    columns = {**about["columns"], "norm": "", "strength": "unbounded", "strength_unit": ""}
    loud = replace(honest, conditions={**honest.conditions, "pgd7 .02": {**about, "columns": columns}})
    half = edited(loud, cell(*PLAIN), success=lambda row: row["id"] > "tones-1-004")
    assert verdicts(check_rows(half), UNBOUNDED)["fail"] == {PLAIN}


def test_an_attack_with_the_wrong_sign_fails(tmp_path: Path) -> None:
    conditions = {
        "clean": Clean(),
        "noise": MatchedNoise(Linf(0.01), distribution="signs"),
        "pgd3": faults.Backwards(Linf(0.01), num_iterations=3),
        "pgd9": faults.Backwards(Linf(0.01), num_iterations=9),
        "towards3": faults.Backwards(Linf(0.01), num_iterations=3, goal=GOAL),
        "towards9": faults.Backwards(Linf(0.01), num_iterations=9, goal=GOAL),
    }
    checks = check_rows(evaluated(tmp_path, {"plain": five_words()}, conditions, spoken(8, seed=2)))
    assert verdicts(checks, NOISE)["fail"] and verdicts(checks, MOVES)["fail"]
    assert ("plain", "towards9") in verdicts(checks, ITERATIONS)["fail"]


@pytest.mark.parametrize("fault", [faults.Rounded, faults.Shattered])
def test_a_masked_gradient_shows_in_rows(tmp_path: Path, fault: type[faults.Fronted]) -> None:
    # So loud that noise matters: steps of random signs end well inside the ball, and do less than it.
    conditions = {
        "clean": Clean(),
        "pgd": PaperPGD(Linf(0.05)),
        "noise": MatchedNoise(Linf(0.05), distribution="signs"),
    }
    checks = check_rows(evaluated(tmp_path, {"masked": fault(five_words())}, conditions, spoken(8, seed=2)))
    assert verdicts(checks, NOISE)["fail"] | verdicts(checks, CHANGED)["fail"] == {("masked", "pgd")}


def test_audio_saved_in_sixteen_bits_fails(honest: Evaluation) -> None:
    path = next(
        path
        for row in honest.rows
        if cell(*PLAIN)(row) and (path := audio_path(honest.run_dir, *PLAIN, PART, row["id"])).exists()
    )
    whole = path.read_bytes()
    samples, rate = soundfile.read(path)
    try:
        for name, subtype in (("in the file", "PCM_16"), ("before the file", "PCM_24")):
            rounded = (samples * 2**15).round() / 2**15
            soundfile.write(path, rounded, rate, format="FLAC", subtype=subtype)
            assert verdicts(check_rows(honest), SAVED)["fail"] == {PLAIN}, name
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (PaperPGD(SNR(15.0), num_iterations=5), "; its steps add up to 0.5 of it"),
        (PaperPGD(SNR(15.0), num_iterations=12), "of the bound"),
        (PaperPGD(SNR(30.0)), "of the bound; its steps add up to 0.7 of it"),
        (faults.Timid(Linf(0.02)), "median perturbation is 0.55 of the bound"),
    ],
    ids=["steps that cannot reach", "steps that wander", "the papers' defaults", "a smaller ball"],
)
def test_an_attack_that_leaves_its_budget_fails(attack: PaperPGD, named: str, tmp_path: Path) -> None:
    conditions = {"clean": Clean(), "attack": attack}
    checks = check_rows(evaluated(tmp_path, {"plain": five_words()}, conditions, spoken(8, seed=2)))
    (check,) = [check for check in checks if check.name == USED.name]
    assert check.verdict == "fail" and named in check.detail


def test_an_attack_along_a_part_of_its_gradient_fails(tmp_path: Path) -> None:
    conditions = {
        "clean": Clean(),
        "sparse": PaperPGD(Linf(0.02), steps=faults.Sparse()),
        "cosine": PGD(Linf(0.02), num_iterations=8),
        "square": Square(Linf(0.02), num_queries=8),
        "standard": Standard(Linf(0.02), forwards=120),
    }
    evaluation = evaluated(tmp_path, {"plain": five_words()}, conditions, spoken(4, seed=2))
    found = verdicts(check_rows(evaluation), WHOLE)
    assert found["fail"] == {("plain", "sparse")}
    assert found["pass"] == {("plain", "cosine"), ("plain", "standard")}
    without = edited(evaluation, lambda row: True, changed_samples=None)
    assert not any(verdicts(check_rows(without), WHOLE).values())
