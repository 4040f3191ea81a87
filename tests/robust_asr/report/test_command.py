"""``python -m robust_asr.report``: files whole or not at all, and one clear sentence on errors."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robust_asr.report import report
from robust_asr.report.__main__ import main
from robust_asr.results.summary import COLUMNS, DIFFERENCE_COLUMNS
from tests.command_line import ROOT
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example

FILES = ["differences.csv", "index.html", "summary.csv", "summary.md"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    conditions = {name: CONDITIONS[name] for name in ("clean", "pgd7-0.01")}
    return write_example(
        tmp_path_factory.mktemp("small") / "run", conditions=conditions, num_utterances=3, keep_audio=1
    )


def test_the_command_writes_four_files_and_prints_the_headline(small, tmp_path, capsys):
    main([str(small), "--out", str(tmp_path / "new" / "out"), "--title", "Mine"])
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == FILES
    printed = capsys.readouterr().out
    assert "95 % interval" in printed and printed.rstrip().endswith(f"The report is {tmp_path}/new/out/index.html")
    assert "<title>Mine</title>" in (tmp_path / "new" / "out" / "index.html").read_text()


def test_tables_lie_beside_the_page(small, tmp_path):
    found = report([small], tmp_path)
    for name, columns, lines in (
        ("summary", COLUMNS, found.lines),
        ("differences", DIFFERENCE_COLUMNS, found.differences),
    ):
        written = list(csv.DictReader((tmp_path / f"{name}.csv").open()))
        assert list(written[0]) == columns and len(written) == len(lines)
        assert [float(row["value"]) for row in written] == pytest.approx([line["value"] for line in lines], rel=1e-5)


def test_differences_are_taken_to_any_system(small, tmp_path, capsys):
    *_, last = SYSTEMS
    found = report([small], tmp_path / "a")
    turned = report([small], tmp_path / "b", first=last)
    assert turned.systems == [last, *(name for name in SYSTEMS if name != last)]
    (part,) = found.parts
    assert {line["baseline"] for line in turned.gains(part)} == {last}
    assert len(turned.differences) == len(found.differences) > len(turned.gains(part))
    ahead = {line["condition"]: line["value"] for line in found.gains(part) if line["system"] == last}
    behind = {line["condition"]: line["value"] for line in turned.gains(part) if line["system"] == found.systems[0]}
    assert ahead.keys() == behind.keys() and all(ahead[name] == pytest.approx(-behind[name]) for name in ahead)
    with pytest.raises(SystemExit):
        main([str(small), "--out", str(tmp_path / "c"), "--first", "none"])
    assert f"no system 'none', found {found.systems[0]}, " in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_same_run_gives_the_same_bytes(small, tmp_path):
    for name in ("a", "b"):
        report([small], tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_a_second_system_there_are_no_differences(tmp_path):
    folder = write_example(tmp_path / "run", systems={"only": SYSTEMS["baseline"]}, num_utterances=2, keep_audio=0)
    report([folder], tmp_path / "out")
    assert (tmp_path / "out" / "differences.csv").read_text() == ",".join(DIFFERENCE_COLUMNS) + "\n"
    assert 'id="differences"' not in (tmp_path / "out" / "index.html").read_text()


def broken(folder: Path, small: Path, kind: str) -> list[str]:
    run, out = folder / "run", folder / "out"
    if kind == "no run":
        return [str(run), "--out", str(out)]
    shutil.copytree(small, run)
    if kind == "no json":
        (run / "evaluation.json").write_text("{\x1b[2J")
    elif kind == "no row":
        (run / "results.jsonl").write_text('{"system": "\x1b[2J"}\n')
    elif kind == "a folder for a file":
        (run / "results.jsonl").unlink()
        (run / "results.jsonl").mkdir()
    elif kind == "no audio":
        for path in (run / "audio").iterdir():
            path.write_bytes(b"\x00")
    elif kind == "twice":
        return [str(run), str(run), "--out", str(out)]
    elif kind == "out is a file":
        out.write_text("mine")
    return [str(run), "--out", str(out)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no run", "holds no evaluation.json"),
        ("no json", "evaluation.json: is not JSON"),
        ("no row", "results.jsonl, line 1: is not JSON"),
        ("a folder for a file", "Is a directory"),
        ("no audio", "is neither FLAC nor WAV"),
        ("twice", "is named twice"),
        ("out is a file", "is a file; name a folder for the report"),
    ],
)
def test_an_error_is_one_sentence_and_nothing_is_written(tmp_path, small, kind, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(broken(tmp_path, small, kind))
    text = capsys.readouterr().err.rstrip("\n")
    assert error.value.code == 2
    assert text.startswith("error: ") and message in text and text.isprintable()
    assert not (tmp_path / "out").is_dir() and (kind != "out is a file" or (tmp_path / "out").read_text() == "mine")


def test_an_old_report_survives_a_failure(small, tmp_path):
    report([small], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match="is named twice"):
        report([small, small], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("wrong", ["-1", "nan", "x"])
def test_a_limit_is_a_size(small, tmp_path, wrong, capsys):
    with pytest.raises(SystemExit):
        main([str(small), "--out", str(tmp_path), f"--megabytes={wrong}"])
    assert "--megabytes" in capsys.readouterr().err
    with pytest.raises(ValueError, match="max_bytes must be 0 or more, found -1"):
        report([small], tmp_path, max_bytes=-1)


def test_a_terminal_of_few_characters_shows_the_rest(small, tmp_path):
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "robust_asr.report", str(small), "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT)
    assert ended.returncode == 0 and b"L? 0.01" in ended.stdout, ended.stderr
