"""Checks run with every evaluation: the report has their verdicts, the terminal the failures, and the rows stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch

from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.checks import Check, read_checks, read_live
from robust_asr.checks.live import evaluation as checking
from robust_asr.checks.live import system as live_system
from robust_asr.checks.live.evaluation import conclude
from robust_asr.checks.live.passage import ACTS
from robust_asr.checks.live.probes import SLOPE
from robust_asr.checks.live.states import UNCHANGED
from robust_asr.checks.rows.records import EVERY_UTTERANCE
from robust_asr.checks.rows.saved_audio import SAVED
from robust_asr.models.compact import CompactCTC
from robust_asr.results import read_evaluation
from tests.command_line import train, write_config
from tests.lightning_modules.test_evaluation import GLOO, SMALL, rows_of

THREAT = {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 0.001}}


@pytest.fixture
def config(tiny_manifests: Path, tmp_path: Path) -> dict:
    torch.manual_seed(0)
    checkpoint.save(CompactCTC(**SMALL), str(tmp_path / "plain.ckpt"))
    plain = {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": str(tmp_path / "plain.ckpt")}}
    noise = {"class_path": "robust_asr.defenses.noise.GaussianNoise", "init_args": {"sigma": 0.01}}
    smoothed = {"class_path": "robust_asr.defenses.base.Defended", "init_args": {"defense": noise, "recognizer": plain}}
    conditions = {
        "none": {"class_path": "robust_asr.attacks.noise.Clean"},
        "pgd": {"class_path": "robust_asr.attacks.pgd.PaperPGD", "init_args": {"threat": THREAT, "num_iterations": 2}},
    }
    return {
        "run_dir": str(tmp_path / "run"),
        "model": {
            "class_path": "lightning_modules.evaluation.Evaluation",
            "init_args": {"systems": {"plain": plain, "smoothed": smoothed}, "conditions": conditions},
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {"manifests": str(tiny_manifests), "test": ["dev"], "max_duration": 5.0},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }


def evaluate(config: dict) -> Path:
    run_dir = Path(config["run_dir"])
    main(["test", "--config", str(write_config(run_dir.parent / "c.yaml", config))])
    return run_dir


def failed(run_dir: Path) -> set[tuple[str, str]]:
    return {(check.name, check.system) for check in read_checks(run_dir) if check.verdict == "fail"}


def test_report_has_live_and_row_checks(config: dict, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = evaluate(config)
    checks = read_checks(run_dir)
    names = {check.name for check in checks if check.verdict == "pass"}
    assert {UNCHANGED.name, SLOPE.name, ACTS.name, EVERY_UTTERANCE.name} <= names
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL: ")]
    assert len(shown) == len([check for check in checks if check.verdict == "fail"])


def test_a_defence_that_is_off_is_printed_and_recorded(config: dict, capsys: pytest.CaptureFixture[str]) -> None:
    config["model"]["init_args"]["systems"]["smoothed"]["init_args"]["defense"]["init_args"]["sigma"] = 0.0
    run_dir = evaluate(config)
    assert (ACTS.name, "smoothed") in failed(run_dir)
    assert f"FAIL: {ACTS.name} (smoothed)" in capsys.readouterr().out


def test_rows_are_the_same_with_and_without_checks(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_checks = rows_of(evaluate(config))
    monkeypatch.setattr(checking.LiveChecks, "check", lambda *_: None)
    config["run_dir"] = str(tmp_path / "without")
    assert rows_of(evaluate(config)) == with_checks


def test_nothing_is_asked_twice_and_all_of_another_condition(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = evaluate(config)
    before = (run_dir / "checks.json").read_bytes()
    asked: list[object] = []
    real = checking.check_attack
    monkeypatch.setattr(checking, "check_attack", lambda *a, **k: asked.append(a[1]) or real(*a, **k))
    evaluate(config)
    assert not asked and (run_dir / "checks.json").read_bytes() == before
    threat = {**THREAT, "init_args": {"eps": 0.002}}
    conditions = config["model"]["init_args"]["conditions"]
    conditions["more"] = {**conditions["pgd"], "init_args": {"threat": threat, "num_iterations": 2}}
    evaluate(config)
    assert [attack.threat.eps for attack in asked] == [0.002, 0.002]


def test_two_ranks_ask_once(config: dict, tmp_path: Path) -> None:
    evaluate(config)
    two = {**config, "run_dir": str(tmp_path / "two"), "trainer": {**config["trainer"], **GLOO}}
    result = train("test", "--config", write_config(tmp_path / "two.yaml", two))
    assert result.returncode == 0, result.stdout
    alone, both = (json.loads((tmp_path / name / "live_checks.json").read_text()) for name in ("run", "two"))
    assert [[check["name"] for check in entry["checks"]] for entry in alone] == [
        [check["name"] for check in entry["checks"]] for entry in both
    ]
    assert list(map(verdict, read_checks(tmp_path / "two"))) == list(map(verdict, read_checks(tmp_path / "run")))


def test_an_adversarial_set_is_checked_against_its_files(config: dict, tmp_path: Path) -> None:
    systems, conditions = (config["model"]["init_args"][name] for name in ("systems", "conditions"))
    made = {"recognizer": systems["plain"], "attack": conditions["pgd"]}
    config["model"] = {"class_path": "lightning_modules.attack_set.AttackSet", "init_args": made}
    config["data"]["init_args"]["predict"] = config["data"]["init_args"].pop("test")
    main(["predict", "--config", str(write_config(tmp_path / "c.yaml", config))])
    run_dir = Path(config["run_dir"])
    checks = {check.name: check for check in read_checks(run_dir)}
    assert checks[SAVED.name].verdict == "pass" and checks[SLOPE.name].verdict == "pass"
    for path in (run_dir / "audio").glob("*.flac"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples, rate, format="FLAC", subtype="PCM_16")
    found = "\n".join(conclude(read_evaluation(run_dir)))
    assert f"FAIL: {SAVED.name} (attacked, under PGD-2): 10 of 10 files" in found and "is PCM_16" in found


def verdict(check: Check) -> tuple[str, str, str, str]:
    return check.name, check.verdict, check.system, check.condition


def test_a_gradient_is_asked_about_once_for_all_budgets(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = live_system.check_gradient
    monkeypatch.setattr(live_system, "check_gradient", lambda *a, **k: asked.append(a) or real(*a, **k))
    conditions = config["model"]["init_args"]["conditions"]
    threat = {**THREAT, "init_args": {"eps": 0.002}}
    conditions["more"] = {**conditions["pgd"], "init_args": {"threat": threat, "num_iterations": 2}}
    run_dir = evaluate(config)
    known = {check.condition for checks in read_live(run_dir).values() for check in checks if check.name == SLOPE.name}
    assert len(asked) == 2 and known == {"pgd", "more"}
