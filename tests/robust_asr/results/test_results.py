"""The record of an evaluation: what is written comes back, and what is no record is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_asr.results import (
    DESCRIPTION,
    ROWS,
    RowWriter,
    audio_path,
    check_row,
    digest,
    key,
    merge,
    other_code,
    read_description,
    read_evaluation,
    read_rows,
    source_hash,
    write_description,
)
from robust_asr.types import Status
from tests.robust_asr.report.example import row

DESCRIBED = {
    "seed": 3,
    "systems": {name: {"hash": name * 2, "columns": {"model": "M"}} for name in ("b", "a")},
    "conditions": {name: {"hash": name, "columns": {"attack": "none"}} for name in ("clean", "noise")},
    "parts": {"test": {"num_utterances": 2}},
}


def rows(system: str = "a", condition: str = "clean", ids: tuple[str, ...] = ("1", "2"), **more) -> list[dict]:
    return [row(system, condition, "test", name, "ONE TWO", "ONE", **more) for name in ids]


def write_lines(run_dir: Path, *entries: object, name: str = ROWS) -> Path:
    run_dir.mkdir(exist_ok=True)
    lines = (entry if isinstance(entry, str) else json.dumps(entry) for entry in entries)
    (run_dir / name).write_text("".join(f"{line}\n" for line in lines))
    return run_dir


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=20)), max_size=5, unique_by=lambda pair: pair[0]),
    st.floats(0, 1e9),
)
def test_rows_come_back_as_they_were(tmp_path_factory, pairs, seconds):
    """Any text, also half of a surrogate pair."""
    run_dir = tmp_path_factory.mktemp("run")
    made = [
        row("a", "clean", "test", utterance, "ONE", "ONE") | {"hypothesis": hypothesis, "seconds": seconds}
        for utterance, hypothesis in pairs
    ]
    RowWriter(run_dir).append(made)
    write_description(run_dir, DESCRIBED)
    assert list(read_rows(run_dir).values()) == made
    merge(run_dir)
    assert sorted(read_rows(run_dir)) == sorted(map(key, made))
    RowWriter(run_dir).append([row("b", "clean", "test", "half \ud800", "ONE", "ONE") | {"hypothesis": "\udfff"}])
    merge(run_dir)
    assert read_rows(run_dir)["b", "clean", "test", "half \ud800"]["hypothesis"] == "\udfff"


def test_rows_stand_in_the_order_of_the_description(tmp_path):
    write_description(tmp_path, DESCRIBED)
    for system, condition in (("a", "noise"), ("a", "clean"), ("b", "noise"), ("b", "clean")):
        RowWriter(tmp_path).append(rows(system, condition, ("2", "10", "1")))
    evaluation = read_evaluation(tmp_path)
    order = [(each["condition"], each["system"], each["id"]) for each in evaluation.rows]
    assert order == [(c, s, i) for c in ("clean", "noise") for s in ("b", "a") for i in ("1", "10", "2")]
    assert [each["id"] for each in evaluation.select("a", "noise", "test")] == ["1", "10", "2"]
    assert evaluation.select("a", "noise", "other") == [] and evaluation.select("x", "clean", "test") == []


def test_a_caller_cannot_change_what_select_returns_next(tmp_path):
    write_description(tmp_path, DESCRIBED)
    RowWriter(tmp_path).append(rows())
    evaluation = read_evaluation(tmp_path)
    evaluation.select("a", "clean", "test").clear()
    assert len(evaluation.select("a", "clean", "test")) == 2


def test_a_line_that_a_kill_cut_short_is_left_out_and_then_dropped(tmp_path):
    writer = RowWriter(tmp_path)
    writer.append(rows())
    whole = writer.path.read_bytes()
    for cut in range(1, len(whole), 11):
        writer.path.write_bytes(whole[:-cut])
        assert len(read_rows(tmp_path)) == whole[:-cut].count(b"\n")
        RowWriter(tmp_path)
        assert writer.path.read_bytes() == whole[: whole.rfind(b"\n", 0, len(whole) - cut) + 1]
        writer.path.write_bytes(whole[:-cut])


def test_ranks_are_read_together_and_merged_into_one_file(tmp_path):
    write_description(tmp_path, DESCRIBED)
    for rank, names in enumerate((("1",), ("2",))):
        RowWriter(tmp_path, rank=rank, world_size=2).append(rows(ids=names))
    assert [each["id"] for each in read_evaluation(tmp_path).rows] == ["1", "2"]
    merge(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [DESCRIPTION, ROWS]
    assert [each["id"] for each in read_evaluation(tmp_path).rows] == ["1", "2"]


def test_a_reader_loses_no_row_to_a_merge_that_comes_in_between(tmp_path, monkeypatch):
    write_description(tmp_path, DESCRIBED)
    for rank in (0, 1):
        RowWriter(tmp_path, rank=rank, world_size=2).append(rows(ids=(str(rank),)))
    read_bytes, merged = Path.read_bytes, []

    def merge_before(path: Path) -> bytes:
        if path.name == "results.rank-1.jsonl" and not merged:
            merged.append(path)
            merge(tmp_path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", merge_before)
    assert sorted(row["id"] for row in read_rows(tmp_path).values()) == ["0", "1"] and merged


def test_a_row_that_is_there_twice_may_differ_in_time_alone(tmp_path):
    write_lines(tmp_path, *rows(seconds=1.0), *rows(seconds=2.0))
    assert len(read_rows(tmp_path)) == 2
    write_lines(tmp_path, *rows(), *rows(snr_db=3.0))
    with pytest.raises(ValueError, match=r"results\.jsonl, line 3: utterance 1 of a under clean is there twice"):
        read_rows(tmp_path)


WRONG_FIELDS = {
    "system": 7,
    "id": None,
    "hypothesis": ["A"],
    "words": -1,
    "insertions": True,
    "deletions": 1.0,
    "substitutions": 2**53,
    "forwards": 10**400,
    "seconds": "1",
    "audio_seconds": None,
    "snr_db": "loud",
    "loss": [1],
    "size": False,
    "note": 3,
    "target": 1.0,
    "success": "yes",
    "status": "not attacked",
    "score": "high",
    "flagged": 1,
    "paid_by": 3,
    "hashes": {"data": 1},
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_wrong_field_is_named_with_its_line(tmp_path, name):
    write_lines(tmp_path, rows()[0], rows()[1] | {name: WRONG_FIELDS[name]})
    with pytest.raises(
        ValueError, match=rf"results\.jsonl, line 2: is not a row of an evaluation: field '{name}' must be"
    ):
        read_rows(tmp_path)


def test_no_text_is_so_long_that_counting_its_errors_takes_minutes(tmp_path):
    write_lines(tmp_path, rows()[0] | {"hypothesis": "A" * 100_001})
    with pytest.raises(
        ValueError, match=r"line 1: .*field 'hypothesis' must have at most 100000 characters, found 100001"
    ):
        read_rows(tmp_path)


def test_a_row_has_a_status_and_may_have_a_detector_and_a_payer(tmp_path):
    for status in Status:
        write_lines(tmp_path, *rows(status=status.value, score=-1.5, flagged=True, paid_by="b"))
        assert [row["status"] for row in read_rows(tmp_path).values()] == [status] * 2
    write_lines(tmp_path, *({name: v for name, v in each.items() if name != "status"} for each in rows()))
    message = "field 'status' must be one of attacked, refused, broken off, masked gradient, found 'None'"
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path)


def test_an_evaluation_of_another_format_is_refused(tmp_path):
    (tmp_path / DESCRIPTION).write_text(json.dumps(DESCRIBED | {"format": 1}))
    with pytest.raises(ValueError, match=r"evaluation\.json: field 'format' must be 2, found '1'"):
        read_evaluation(tmp_path)


def test_a_target_needs_its_counts(tmp_path):
    """Defect 16 of other systems: WER of a targeted attack without saying against which text."""
    write_lines(tmp_path, *rows(target="OPEN"))
    with pytest.raises(ValueError, match="field 'target_errors' must be a count, found 'None'"):
        read_rows(tmp_path)
    write_lines(tmp_path, *rows(target="OPEN", target_errors=1, target_words=1, snr_db=None, success=None))
    assert len(read_rows(tmp_path)) == 2


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e300", "[1", "{}", '"x"'])
def test_no_number_that_is_none_is_read(tmp_path, number):
    write_lines(tmp_path, json.dumps(rows()[0]).replace('"seconds": 0.01', f'"seconds": {number}'))
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1: is not (JSON|a row)"):
        read_rows(tmp_path)


@pytest.mark.parametrize("line", ["", "null", "[]", "[" * 100_000, "\x00", "{", '{"system": "a"}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    write_lines(tmp_path, line)
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1: is not"):
        read_rows(tmp_path)


def test_a_folder_without_a_description_is_no_evaluation(tmp_path):
    write_lines(tmp_path, *rows())
    with pytest.raises(ValueError, match=r"holds no evaluation\.json: `python train.py test` writes it"):
        read_evaluation(tmp_path)


WRONG_DESCRIPTIONS = {
    "no JSON": "{",
    "a list": [],
    "another format": DESCRIBED | {"format": 1},
    "no systems": {name: value for name, value in DESCRIBED.items() if name != "systems"} | {"format": 2},
    "columns that are a list": DESCRIBED | {"format": 2, "systems": {"a": {"hash": "x", "columns": []}}},
    "a column that is a map": DESCRIBED | {"format": 2, "conditions": {"a": {"hash": "x", "columns": {"attack": {}}}}},
    "a hash that is a number": DESCRIBED | {"format": 2, "systems": {"a": {"hash": 1, "columns": {}}}},
    "a negative size": DESCRIBED | {"format": 2, "parts": {"test": {"num_utterances": -1}}},
    "a size that is true": DESCRIBED | {"format": 2, "parts": {"test": {"num_utterances": True}}},
}


@pytest.mark.parametrize("name", WRONG_DESCRIPTIONS)
def test_a_description_that_is_none_is_named(tmp_path, name):
    content = WRONG_DESCRIPTIONS[name]
    (tmp_path / DESCRIPTION).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=r"evaluation\.json: "):
        read_description(tmp_path)


def test_what_an_earlier_start_described_stays(tmp_path):
    write_description(tmp_path, DESCRIBED)
    other = {"b": DESCRIBED["systems"]["b"], "new": {"hash": "n", "columns": {}}}
    write_description(tmp_path, DESCRIBED | {"systems": other})
    assert list(read_description(tmp_path)["systems"]) == ["b", "new", "a"]
    for kind in ("systems", "parts"):
        changed = {name: entry | {"hash": "changed"} for name, entry in DESCRIBED[kind].items()}
        with pytest.raises(ValueError, match=rf"holds results of another {kind[:-1]} .*now changed"):
            write_description(tmp_path, DESCRIBED | {kind: changed})


def test_rows_of_what_is_not_described_are_kept_apart(tmp_path):
    """A killed and extended evaluation may hold them; they are in no table, and no merge loses them."""
    write_description(tmp_path, DESCRIBED)
    RowWriter(tmp_path).append([*rows(), *rows("gone")])
    assert {each["system"] for each in read_evaluation(tmp_path).rows} == {"a"}
    merge(tmp_path)
    assert {each["system"] for each in read_rows(tmp_path).values()} == {"a", "gone"}


def test_a_row_of_another_system_or_recording_is_refused(tmp_path):
    (made,) = rows(ids=("1",))
    check_row(made, {"system": "s", "condition": "c", "data": "1"}, tmp_path)
    for name, entry in (("system", "a"), ("condition", "clean"), ("data", "1")):
        with pytest.raises(ValueError, match=rf"another {name} '{entry}' \(hash .*, now other\)"):
            check_row(made, {name: "other"}, tmp_path)


def test_audio_has_a_safe_name_that_no_two_cells_share(tmp_path):
    cells = [("a/../..", "c", "p", "\x00id"), ("a", "c", "p", "id"), ("a", "cp", "", "id"), ("p", "id")]
    paths = [audio_path(tmp_path, *cell) for cell in cells]
    assert len(set(paths)) == len(cells)
    assert all(path.parent == tmp_path / "audio" and path.stem.isalnum() and len(path.stem) == 16 for path in paths)


def test_a_digest_is_that_of_the_content_alone():
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1}) != digest({"a": 1, "b": 2})
    with pytest.raises(ValueError):
        digest(float("nan"))


def test_versions_of_the_code_are_kept(tmp_path, monkeypatch):
    write_description(tmp_path, DESCRIBED)
    write_description(tmp_path, DESCRIBED)
    (first,) = read_description(tmp_path)["code"]
    assert first == source_hash() and other_code(tmp_path) == []
    monkeypatch.setattr("robust_asr.results.source_hash", lambda: "changed")
    assert other_code(tmp_path) == [first]
    write_description(tmp_path, DESCRIBED)
    assert read_description(tmp_path)["code"] == [first, "changed"]
