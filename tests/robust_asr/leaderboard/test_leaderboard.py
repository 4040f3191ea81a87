"""The leaderboard: who stands where, what never shares a table, and how mistakes are named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from robust_asr.leaderboard import CSV, PAGE, leaderboard
from robust_asr.leaderboard.__main__ import main
from robust_asr.leaderboard.page import page_text, separations
from robust_asr.leaderboard.ranking import COLUMNS, rank
from robust_asr.report.runs import read_each
from robust_asr.results.csv_cells import decode
from tests.robust_asr.report.breaking_example import BREAKING, write_breaking
from tests.robust_asr.report.example import CHECKS, SYSTEMS, write_example


def written(out: Path) -> list[dict[str, Any]]:
    with (out / CSV).open(newline="") as file:
        return [{name: decode(cell) for name, cell in line.items()} for line in csv.DictReader(file)]


def edited(folder: Path, change: Any) -> Path:
    """The run with its description changed."""
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_breaking(tmp_path_factory.mktemp("leaderboard") / "one", num_utterances=24, checks=CHECKS)


def test_the_most_robust_comes_first_with_what_it_costs(run_dir: Path, tmp_path: Path) -> None:
    (table,) = leaderboard([run_dir], tmp_path / "out")
    assert [entry.system for entry in table.entries] == list(reversed(SYSTEMS))
    lines = written(tmp_path / "out")
    assert list(lines[0]) == COLUMNS and [line["rank"] for line in lines] == [1, 2, 3]
    assert [line["system"] for line in lines] == list(reversed(SYSTEMS))
    values = [line["breaking_SNR"] for line in lines if isinstance(line["breaking_SNR"], float)]
    assert len(values) > 1 and values == sorted(values) and lines[0]["behind_first"] == ""
    last = lines[-1]
    assert last["ci_low"] <= last["breaking_SNR"] <= last["ci_high"] and last["n"] == 24
    assert last["attack_forwards"] == 300 and last["clean_low"] <= last["clean_WER"] <= last["clean_high"]
    for line in lines:
        own = [check["verdict"] for check in CHECKS if check.get("system", "") in ("", line["system"])]
        assert (line["checks_failed"], line["checks_passed"]) == (own.count("fail"), own.count("pass"))
    assert any(line["checks_failed"] for line in lines)
    page = (tmp_path / "out" / PAGE).read_text()
    assert "Checks failed for" in page and "<script" not in page and page.count('class="line s') >= 3


def test_the_paired_difference_to_the_first_is_closer_than_the_medians(tmp_path: Path) -> None:
    systems = dict(list(SYSTEMS.items())[:2])
    (table,) = rank(read_each([write_breaking(tmp_path / "run", num_utterances=30, systems=systems)]))
    behind, own = table.entries[1].behind, table.entries[1].snr
    assert behind.low <= 10 <= behind.high and behind.high - behind.low < own.high - own.low


def test_runs_share_a_table_only_on_the_same_terms(run_dir: Path, tmp_path: Path) -> None:
    one = {"baseline": SYSTEMS["baseline"]}
    same = write_breaking(tmp_path / "same", num_utterances=24, systems={"another": SYSTEMS["baseline"]})
    terms = {
        "another attack or another version or budget of it": {"attack": BREAKING["attack"].replace("-1", "-2")},
        "another threshold": {"breaking": "30 % of the words"},
        "another range of budgets": {"strength": "1e-05 to 0.1"},
        "another knowledge of the attacker": {"knowledge": "other"},
    }
    runs = [
        write_breaking(tmp_path / str(place), num_utterances=24, systems=one, columns=BREAKING | change)
        for place, change in enumerate(terms.values())
    ]
    runs.append(write_breaking(tmp_path / "utterances", num_utterances=24, seed=5, systems=one))
    settings = write_breaking(tmp_path / "settings", num_utterances=24, systems=one)
    runs.append(edited(settings, lambda content: content["conditions"]["breaking"]["description"].update(steps=9)))
    tables = rank(read_each([run_dir, same, *runs]))
    assert [len(table.entries) for table in tables] == [4, 1, 1, 1, 1, 1, 1]
    reasons = [*terms, "other utterances", "other settings of the attack"]
    sentences = separations(tables)
    assert [sentence.rpartition(": ")[2] for sentence in sentences] == [f"{reason}." for reason in reasons]
    page = page_text(tables, "T")
    assert all(sentence in page for sentence in sentences)


def test_a_system_that_two_runs_measured_alike_stands_there_once(run_dir: Path, tmp_path: Path) -> None:
    again = write_breaking(tmp_path / "again", num_utterances=24)
    (table,) = rank(read_each([run_dir, again]))
    assert [len(entry.runs) for entry in table.entries] == [2, 2, 2]
    edited(again, lambda content: [about.update(hash=f"other{name}") for name, about in content["systems"].items()])
    (table,) = rank(read_each([run_dir, again]))
    assert [len(entry.runs) for entry in table.entries] == [1] * 6


def test_what_a_record_does_not_hold_is_left_open(tmp_path: Path) -> None:
    folder = write_breaking(tmp_path / "run", num_utterances=3)
    path = folder / "results.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"condition": "clean"' not in line]
    path.write_text("".join(f"{line}\n" for line in kept))
    edited(folder, lambda content: content["systems"]["baseline"].update(forwards_per_transcript=16))
    leaderboard([folder], tmp_path / "out")
    lines, page = written(tmp_path / "out"), (tmp_path / "out" / PAGE).read_text()
    assert {line["clean_WER"] for line in lines} == {""} and {line["checks_failed"] for line in lines} == {""}
    assert {line["forwards_per_transcript"] for line in lines} == {"", 16}
    assert "not run" in page and "not checked" in page


def test_the_command_prints_the_tables(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_breaking(tmp_path / "other", num_utterances=5, systems={"small\x1b[31m": SYSTEMS["baseline"]})
    main([str(run_dir), str(other), "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "Table 1: breaking point" in shown and "24 utterances" in shown and "Table 2" in shown
    assert "other utterances." in shown and "\x1b" not in shown and shown.rstrip().endswith(str(Path("out") / PAGE))
    order = [shown.index(f"  {name}  ") for name in reversed(SYSTEMS)]
    assert order == sorted(order)


def test_mistakes_are_one_sentence(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = write_example(tmp_path / "plain", num_utterances=2, keep_audio=0)
    broken = write_breaking(tmp_path / "broken", num_utterances=2)
    edited(broken, lambda content: content["systems"]["baseline"].update(forwards_per_transcript="many"))
    file = tmp_path / "file"
    file.write_text("")
    takes = "plain/evaluation.json: a leaderboard takes runs with a breaking point that has rows, found the conditions clean,"
    count = "broken/evaluation.json: field 'systems': forwards_per_transcript of 'baseline' must be a count"
    for runs, out, words in (
        ([plain], "out", takes),
        ([run_dir, run_dir], "out", "is named twice"),
        ([tmp_path / "absent"], "out", "absent holds no evaluation.json"),
        ([broken], "out", count),
        ([run_dir], "file", "is a file; name a folder for the leaderboard"),
    ):
        with pytest.raises(SystemExit) as left:
            main([*map(str, runs), "--out", str(tmp_path / out)])
        error = capsys.readouterr().err
        assert left.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        assert words in error and not (tmp_path / "out").exists()
