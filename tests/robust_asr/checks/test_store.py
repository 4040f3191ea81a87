"""Verdicts on disk, on the terminal and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robust_asr.checks import check_rows, lines, read_checks, read_live, write_checks, write_live
from robust_asr.checks.__main__ import main
from robust_asr.checks.live.probes import SLOPE
from robust_asr.checks.rows.controls import NOISE
from robust_asr.checks.rows.records import EVERY_UTTERANCE
from robust_asr.results import Evaluation
from tests.robust_asr.checks.table import PLAIN, edited, without_first


def test_the_report_reads_what_is_written(honest: Evaluation, tmp_path: Path) -> None:
    broken = without_first(honest)
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
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "nothing")])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ")


def test_checks_json_is_plain_data(honest: Evaluation, tmp_path: Path) -> None:
    write_checks(tmp_path, [SLOPE.verdict(False, "found", value=float("inf")), NOISE.not_run("add it")])
    assert [entry["value"] for entry in json.loads((tmp_path / "checks.json").read_text())] == ["inf", ""]
