"""On honest evaluations nothing fails; each planted fault trips the check that is named for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from robust_asr.attacks.base import Attack
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import Clean, Gaussian, MatchedNoise, Uniform
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.checks import Check, check_rows, check_system, lines, read_live, write_checks, write_live
from robust_asr.checks.__main__ import main
from robust_asr.checks.attackers import KNOWLEDGE, UNBOUNDED
from robust_asr.checks.budgets import CHANGED, USED, WITHIN
from robust_asr.checks.controls import MOVES, NOISE
from robust_asr.checks.draws import AVERAGES, OWN_DRAWS, REPEATS
from robust_asr.checks.optimizers import BUDGET, DRAWS, ITERATIONS, SPENT
from robust_asr.checks.passage import ACTS, KEPT, PADDING
from robust_asr.checks.probes import REACHES, SLOPE
from robust_asr.checks.records import EVERY_UTTERANCE, OWN_ROWS, OWN_TEXT, SAME_RECORDING, SAME_TEXT
from robust_asr.checks.saved_audio import SAVED
from robust_asr.checks.states import EVALUATING, UNCHANGED
from robust_asr.checks.system import shortened
from robust_asr.checks.transcripts import EMPTIER, HEARS
from robust_asr.checks.verdicts import Question
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.metrics import count_errors
from robust_asr.models.base import Recognizer
from robust_asr.report.checks import read_checks
from robust_asr.results import Evaluation, Row, audio_path
from robust_asr.threat import L2, SNR, Linf
from tests.robust_asr import faults
from tests.robust_asr.honest import PART, evaluated, listener, seeds_of, spoken
from tests.robust_asr.test_contract import RECOGNIZERS, trained

GOAL = Targeted(PhraseList(["YES NO", "GO STOP HELP", "HELP", "NO NO GO YES"]))
CONDITIONS: dict[str, Attack] = {
    "clean": Clean(),
    "gaussian": Gaussian(sigma=0.01),
    "uniform 10 dB": Uniform(snr_db=10.0),
    "fgsm .001": FGSM(Linf(0.001)),
    "pgd7 .001": PGD(Linf(0.001)),
    "pgd7 .02": PGD(Linf(0.02)),
    "pgd20 .02": PGD(Linf(0.02), num_iterations=20),
    "eot4 .02": PGD(Linf(0.02), num_draws=4),
    "unaware .02": PGD(Linf(0.02), knowledge="unaware"),
    "noise .001": MatchedNoise(Linf(0.001), distribution="signs"),
    "noise .02": MatchedNoise(Linf(0.02), distribution="signs"),
    "pgd 15 dB": PGD(SNR(15.0), num_iterations=12),
    "noise 15 dB": MatchedNoise(SNR(15.0)),
    "towards .02": PGD(Linf(0.02), goal=GOAL),
    "far towards .02": PGD(Linf(0.02), goal=GOAL, num_iterations=14),
}


def smoothed(sigma: float = 0.01) -> Defended:
    return Defended(GaussianNoise(sigma), listener())


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    systems = {"plain": listener(), "smoothed": smoothed()}
    return evaluated(tmp_path_factory.mktemp("honest"), systems, CONDITIONS, spoken(10, seed=1))


def verdicts(checks: Iterable[Check], question: Question) -> dict[str, set[tuple[str, str]]]:
    """Verdict -> the (system, condition) that have it."""
    found: dict[str, set[tuple[str, str]]] = {"fail": set(), "not run": set(), "pass": set()}
    for check in checks:
        if check.name == question.name:
            found[check.verdict].add((check.system, check.condition))
    return found


def edited(evaluation: Evaluation, where: Callable[[Row], bool], **changes: object) -> Evaluation:
    """With changes to some rows; a callable makes its value from the row."""
    rows = []
    for row in evaluation.rows:
        made = changes if where(row) else {}
        rows.append({**row, **{name: new(row) if callable(new) else new for name, new in made.items()}})
    return replace(evaluation, rows=tuple(rows))


def cell(system: str, condition: str) -> Callable[[Row], bool]:
    return lambda row: (row["system"], row["condition"]) == (system, condition)


# Rows.


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
        SAVED,
    )
    stronger = (ITERATIONS, BUDGET, DRAWS, SPENT, MOVES, NOISE, KNOWLEDGE, UNBOUNDED)
    assert {question.name for question in (*questions, *stronger)} <= passed


def test_comparisons_are_those_that_differ_in_one_thing(honest: Evaluation) -> None:
    checks = check_rows(honest)
    both = ("plain", "smoothed")
    assert verdicts(checks, ITERATIONS)["pass"] == {
        (system, condition) for system in both for condition in ("pgd7 .001", "pgd20 .02", "far towards .02")
    }
    assert verdicts(checks, BUDGET)["pass"] == {(system, "pgd7 .02") for system in both}
    assert verdicts(checks, DRAWS)["pass"] == {(system, "eot4 .02") for system in both}
    assert verdicts(checks, SPENT)["pass"] == {("smoothed", "eot4 .02")}
    assert verdicts(checks, KNOWLEDGE)["pass"] == {(system, "unaware .02") for system in both}


def test_what_is_missing_is_named(honest: Evaluation) -> None:
    kept = {name: honest.conditions[name] for name in ("clean", "pgd7 .001")}
    rows = tuple(row for row in honest.rows if row["condition"] in kept)
    checks = check_rows(replace(honest, conditions=kept, rows=rows))
    missing = {check.name: check.detail for check in checks if check.verdict == "not run"}
    assert missing.keys() == {question.name for question in (ITERATIONS, BUDGET, DRAWS, NOISE, KNOWLEDGE, UNBOUNDED)}
    assert "MatchedNoise" in missing[NOISE.name] and "Linf 0.001" in missing[NOISE.name]
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


PLAIN = ("plain", "pgd7 .02")
FIRST = "tones-1-000"


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

ROW_FAULTS: dict[str, tuple[Question, tuple[str, str], Callable[[Evaluation], Evaluation]]] = {
    "dropped utterance": (
        EVERY_UTTERANCE,
        PLAIN,
        lambda e: replace(e, rows=tuple(row for row in e.rows if not (cell(*PLAIN)(row) and row["id"] == FIRST))),
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
    "nothing attacked": (CHANGED, PLAIN, lambda e: edited(e, cell(*PLAIN), snr_db=None, note="not attacked: why not")),
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
    "a gain from silence": (
        EMPTIER,
        ("smoothed", "pgd7 .02"),
        lambda e: edited(
            e,
            cell("smoothed", "pgd7 .02"),
            hypothesis="",
            insertions=0,
            substitutions=0,
            deletions=lambda row: row["words"] // 2,
        ),
    ),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_a_fault_in_rows_trips_its_check_and_no_other_cell(honest: Evaluation, fault: str) -> None:
    question, place, plant = ROW_FAULTS[fault]
    checks = check_rows(plant(honest))
    assert verdicts(checks, question)["fail"] == {place}
    (failed,) = (check for check in checks if check.verdict == "fail" and check.name == question.name)
    assert failed.detail.endswith(question.failure) and failed.value != ""


def test_a_budget_below_the_noise_of_the_system_tells_nothing(honest: Evaluation) -> None:
    def flat(row: Row) -> bool:
        return row["system"] == "smoothed" and row["condition"] in ("pgd7 .001", "fgsm .001")

    small = tuple(row for row in honest.rows if row["condition"] in ("clean", "fgsm .001", "pgd7 .001", "noise .001"))
    kept = {name: about for name, about in honest.conditions.items() if name in {row["condition"] for row in small}}
    few = edited(replace(honest, conditions=kept, rows=small), flat, loss=0.5)
    found = verdicts(check_rows(few), NOISE)
    assert {system for system, _ in found["not run"]} == {"smoothed"} and not found["fail"]
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
    checks = check_rows(evaluated(tmp_path, {"plain": listener()}, conditions, spoken(8, seed=2)))
    assert verdicts(checks, NOISE)["fail"] and verdicts(checks, MOVES)["fail"]
    assert ("plain", "towards9") in verdicts(checks, ITERATIONS)["fail"]


@pytest.mark.parametrize("fault", [faults.Rounded, faults.Shattered])
def test_a_masked_gradient_shows_in_rows(tmp_path: Path, fault: type[faults.Fronted]) -> None:
    conditions = {"clean": Clean(), "pgd": PGD(Linf(0.01)), "noise": MatchedNoise(Linf(0.01), distribution="signs")}
    checks = check_rows(evaluated(tmp_path, {"masked": fault(listener())}, conditions, spoken(8, seed=2)))
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


# Live.

LIVE: dict[str, Attack] = {
    "clean": CONDITIONS["clean"],
    "gaussian": CONDITIONS["gaussian"],
    "pgd": PGD(Linf(0.001), random_start=True),
    "fgsm": FGSM(Linf(0.001)),
    "eot": PGD(L2(0.1), num_draws=8),
    "noise": MatchedNoise(SNR(30.0)),
    "cw": CarliniWagner(GOAL, num_iterations=50, num_draws=2),
    "stopping": PGD(Linf(0.01), stop_on_success=True, check_every=1, knowledge="straight_through"),
}


def live(recognizer: Recognizer, attack: Attack, *, seed: int = 0) -> list[Check]:
    batch = spoken(3, seed=3)
    return check_system(recognizer, attack, batch, seeds=seeds_of(batch, seed))


@pytest.mark.parametrize("name", LIVE)
def test_nothing_fails_live_on_honest_systems(name: str) -> None:
    for recognizer in (listener(), smoothed()):
        checks = live(recognizer, LIVE[name])
        assert lines(checks, "fail", "not run") == []
        assert {UNCHANGED.name, EVALUATING.name, REPEATS.name, PADDING.name} <= {check.name for check in checks}


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_nothing_fails_live_on_any_recognizer(name: str) -> None:
    assert lines(live(trained(name), PGD(Linf(0.001))), "fail", "not run") == []


LIVE_FAULTS: dict[str, tuple[Question, Callable[[], Recognizer], Attack]] = {
    "BatchNorm drift": (UNCHANGED, lambda: trained("compact"), faults.Drifting(Linf(0.001))),
    "training mode": (EVALUATING, lambda: trained("compact"), faults.Drifting(Linf(0.001))),
    "model changed": (UNCHANGED, lambda: trained("toy_ctc"), faults.Training(Linf(0.001))),
    "gradients left": (UNCHANGED, lambda: trained("toy_ctc"), faults.Accumulating(Linf(0.001))),
    "one EoT draw": (AVERAGES, smoothed, faults.OneDraw(Linf(0.001), num_draws=16)),
    "one EoT draw sixteen times": (AVERAGES, smoothed, faults.SameDraw(Linf(0.001), num_draws=16)),
    "rounded": (REACHES, lambda: faults.Rounded(listener()), PGD(Linf(0.001))),
    "thresholded": (REACHES, lambda: faults.Thresholded(listener()), PGD(Linf(0.001))),
    "rounded, straight through": (SLOPE, lambda: faults.RoundedCoarsely(listener()), PGD(Linf(0.001))),
    "detached": (SLOPE, lambda: faults.Detached(listener()), PGD(Linf(0.001))),
    "shattered": (SLOPE, lambda: faults.Shattered(listener()), PGD(Linf(0.001))),
    "dropout left on": (REPEATS, lambda: faults.Dropping(listener()), PGD(Linf(0.001))),
    "padding heard": (PADDING, lambda: faults.Circular(listener()), Clean()),
    "defence off": (ACTS, lambda: smoothed(0.0), Clean()),
    "defence off where scored": (ACTS, lambda: faults.Bypassed(smoothed()), Clean()),
    "same noise in the defence": (OWN_DRAWS, lambda: Defended(faults.SharedDefense(0.01), listener()), Clean()),
    "same noise in the control": (OWN_DRAWS, listener, faults.SharedNoise(Linf(0.01))),
    "draws not declared": (OWN_DRAWS, lambda: faults.Secretive(listener()), Clean()),
    "too small for a file": (KEPT, listener, PGD(Linf(1e-8))),
}


@pytest.mark.parametrize("fault", LIVE_FAULTS)
def test_a_live_fault_trips_its_check(fault: str) -> None:
    question, system, attack = LIVE_FAULTS[fault]
    failed = [check for check in live(system(), attack) if check.verdict == "fail"]
    assert question.name in {check.name for check in failed}
    assert all(check.value != "" for check in failed)


def test_one_seed_for_all_utterances_fails() -> None:
    batch = spoken(3, seed=3)
    checks = check_system(smoothed(), Gaussian(sigma=0.01), batch, seeds=torch.zeros(3, dtype=torch.long))
    assert [check.name for check in checks if check.verdict == "fail"] == [OWN_DRAWS.name] * 2


def test_checking_leaves_everything_as_it_was() -> None:
    recognizer = trained("compact").train()
    recognizer.zero_grad()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in recognizer.state_dict().items()}
    live(recognizer, PGD(Linf(0.001)))
    assert recognizer.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in recognizer.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in recognizer.parameters())


def test_what_cannot_be_attacked_is_said() -> None:
    batch = replace(spoken(2, seed=3), texts=("1", "2"))
    checks = check_system(listener(), PGD(Linf(0.001)), batch, seeds=seeds_of(batch))
    assert {check.name for check in checks if check.verdict == "not run"} == {
        question.name for question in (REPEATS, PADDING, REACHES, SLOPE)
    }
    assert lines(checks, "fail") == []


def test_long_attacks_are_cut_short() -> None:
    assert shortened(PGD(Linf(0.1), num_iterations=500)).num_iterations == 3
    assert shortened(PGD(Linf(0.1), num_iterations=2)) == PGD(Linf(0.1), num_iterations=2)
    assert shortened(LIVE["fgsm"]) == LIVE["fgsm"] and shortened(Clean()) == Clean()
    assert shortened(CarliniWagner(GOAL)).num_iterations == 3


def test_draws_are_counted_on_what_was_attacked() -> None:
    batch = replace(spoken(3, seed=3), texts=("GO", "1", "2"))
    checks = check_system(smoothed(), PGD(Linf(0.001), num_draws=4), batch, seeds=seeds_of(batch))
    assert lines(checks, "fail") == [] and verdicts(checks, AVERAGES)["pass"]


# Files.


def test_the_report_reads_what_is_written(honest: Evaluation, tmp_path: Path) -> None:
    broken = ROW_FAULTS["dropped utterance"][2](honest)
    write_checks(tmp_path, check_rows(broken))
    read = read_checks(tmp_path)
    (failed,) = (check for check in read if check.verdict == "fail")
    assert (failed.name, failed.system, failed.condition) == (EVERY_UTTERANCE.name, *PLAIN)
    assert len(read) < 30


def test_a_fault_everywhere_is_a_few_lines(honest: Evaluation) -> None:
    stale = edited(honest, lambda row: True, hashes={})
    failed = lines(check_rows(stale), "fail")
    assert len(failed) == 7 and "24 more times" in failed[-1]
    assert all("\n" not in line for line in failed)


def test_live_verdicts_are_kept_by_what_they_are_of(honest: Evaluation, tmp_path: Path) -> None:
    system, condition = honest.systems["plain"]["hash"], honest.conditions["clean"]["hash"]
    check = SLOPE.verdict(False, "found", system="plain", value=float("nan"))
    write_live(tmp_path, {(system, ""): [check], ("another", condition): [check]})
    write_live(tmp_path, {(system, condition): [check]})
    assert read_live(tmp_path).keys() == {(system, ""), ("another", condition), (system, condition)}
    assert read_live(tmp_path, honest) == {(system, ""): [check], (system, condition): [check]}


@pytest.mark.parametrize(
    "content", ["{", "3", '[{"system": "a"}]', '[{"system": "a", "condition": "", "checks": [{}]}]']
)
def test_a_broken_file_of_live_verdicts_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "live_checks.json").write_text(content)
    with pytest.raises(ValueError, match=r"live_checks\.json"):
        read_live(tmp_path)


def test_the_command_fails_where_a_check_does(honest: Evaluation, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(honest.run_dir), "--write"])
    assert ended.value.code == 0 and "PASS: " + NOISE.name in capsys.readouterr().out
    assert all(check.verdict != "fail" for check in read_checks(honest.run_dir))
    for name in ("evaluation.json", "results.jsonl"):
        content = (honest.run_dir / name).read_text()
        (tmp_path / name).write_text(content if name == "evaluation.json" else content.split("\n", 1)[1])
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 1 and "FAIL: " + EVERY_UTTERANCE.name in capsys.readouterr().out
    assert not (tmp_path / "checks.json").exists()
    with pytest.raises(SystemExit, match="error: "):
        main([str(tmp_path / "nothing")])


def test_checks_json_is_plain_data(honest: Evaluation, tmp_path: Path) -> None:
    write_checks(tmp_path, [SLOPE.verdict(False, "found", value=float("inf")), NOISE.not_run("add it")])
    assert [entry["value"] for entry in json.loads((tmp_path / "checks.json").read_text())] == ["inf", ""]
