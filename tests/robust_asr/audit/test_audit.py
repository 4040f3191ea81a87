from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from robust_asr.attacks.breaking import BreakingPoint, _Search
from robust_asr.audit import __main__ as command
from robust_asr.audit import audit
from robust_asr.audit.scales import QUICK
from robust_asr.metrics import word_edits
from robust_asr.results import RowWriter, read_rows
from tests.hf_ctc_folder import write_ctc
from tests.robust_asr.attacks.oracles import PITCHES
from tests.robust_asr.audit.conftest import write_spoken

PHRASE = next(iter(PITCHES))


def rows_of(out: Path) -> dict[Any, dict[str, Any]]:
    return dict(read_rows(out))


@pytest.fixture(scope="module")
def done(model: Path, audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "out"
    assert audit(str(model), audio, out, quick=True, phrase=PHRASE) == out / "report" / "index.html"
    return out


def test_every_utterance_has_a_row_under_every_condition(done: Path) -> None:
    cells = Counter((system, condition) for system, condition, _, _ in rows_of(done))
    plan = json.loads((done / "audit.json").read_text())
    small, large = plan["eps"], 3 * plan["eps"]
    conditions = {condition for _, condition in cells}
    assert {system for system, _ in cells} == {"words", "words + RS 0.01"}
    assert {"none", f"signs {small:.2g}", f"PGD-4 {small:.2g}", f"phrase {large:.2g}"} <= conditions
    assert len(conditions) == 2 + 2 * len(QUICK.factors) and set(cells.values()) == {4}


def test_the_budget_is_where_the_model_breaks(done: Path) -> None:
    plan = json.loads((done / "audit.json").read_text())
    assert len(plan["searched"]) == QUICK.searched and 1e-4 < plan["eps"] < 3.2e-2
    rows = [row for row in rows_of(done).values() if row["system"] == "words"]
    errors = {
        name: sum(word_edits(row) for row in rows if row["condition"].startswith(name))
        for name in ("none", "signs", "PGD")
    }
    assert errors["none"] == 0 and errors["PGD"] > errors["signs"]


def test_the_page_says_where_it_breaks_and_checks_were_run(done: Path) -> None:
    page = (done / "report" / "index.html").read_text()
    eps = json.loads((done / "audit.json").read_text())["eps"]
    assert f"words: half of the words are wrong from eps {eps:.2g} on (median of 2 utterances)" in page
    assert json.loads((done / "checks.json").read_text())
    assert (done / "summary.csv").is_file() and not list((done / "partial").glob("*"))


def test_it_says_how_long_it_will_take_before_it_begins(
    model: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BreakingPoint, "perturb", _dies)
    with pytest.raises(_Killed):
        audit(str(model), audio, tmp_path / "out", quick=True, phrase=PHRASE)
    assert "4 utterances, 2 systems, 6 conditions: about " in capsys.readouterr().out


class _Killed(BaseException):
    pass


def _dies(*_: Any, **__: Any) -> None:
    raise _Killed


def test_a_killed_audit_goes_on_and_computes_no_row_twice(
    done: Path, model: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written, tried = tmp_path / "out", [], []
    append, try_budgets = RowWriter.append, _Search.try_budgets

    def counted(self: RowWriter, rows: list[dict[str, Any]]) -> None:
        if len(written) == 17:
            raise _Killed
        written.extend((row["system"], row["condition"], row["id"]) for row in rows)
        append(self, rows)

    def counted_search(self: _Search, partial: Any) -> None:
        if len({*tried, int(self.seeds)}) > 1 and len(lives) == 1:
            raise _Killed
        tried.append(int(self.seeds))
        try_budgets(self, partial)

    monkeypatch.setattr(RowWriter, "append", counted)
    monkeypatch.setattr(_Search, "try_budgets", counted_search)
    lives: list[int] = []
    for _ in range(2):
        lives.append(len(tried))
        with pytest.raises(_Killed):
            audit(str(model), audio, out, quick=True, phrase=PHRASE)
    # The search that was over is taken from its saved state.
    assert len(set(tried[: lives[1]])) == 1 and tried[0] not in tried[lives[1] :] and len(written) == 17
    num_tried = len(tried)
    kept = rows_of(out)
    monkeypatch.setattr(RowWriter, "append", append)
    audit(str(model), audio, out, quick=True, phrase=PHRASE)
    assert len(tried) == num_tried, "the budget is known"
    found, expected = rows_of(out), rows_of(done)
    assert all(found[cell] == row for cell, row in kept.items()), (
        "rows that were there stay as they were, their times too"
    )
    assert found.keys() == expected.keys() and len(kept) == 17
    for cell, row in expected.items():
        assert {**found[cell], "seconds": 0} == {**row, "seconds": 0}


def test_a_folder_of_another_audit_is_refused(done: Path, model: Path, audio: Path, tmp_path: Path) -> None:
    fewer = write_spoken(tmp_path / "fewer", 3)
    before, manifest = rows_of(done), (done / "data" / "audio.jsonl.gz").read_bytes()
    others = ({"phrase": "A"}, {"utterances": 2}, {"seed": 1}, {"sigma": 0.02}, {"audio": fewer})
    for changes, what in zip(others, ["settings"] * 4 + ["audio"], strict=True):
        with pytest.raises(ValueError, match=f"holds an audit with another {what}; name another folder"):
            audit(**{"model": str(model), "audio": audio, "out": done, "quick": True, "phrase": PHRASE, **changes})
    assert rows_of(done) == before and (done / "data" / "audio.jsonl.gz").read_bytes() == manifest


def test_a_model_of_transformers_is_audited(audio: Path, tmp_path: Path) -> None:
    folder = write_ctc(tmp_path / "wav2vec2", feat_extract_norm="group", do_stable_layer_norm=False)
    page = audit(str(folder), audio, tmp_path / "out", quick=True, utterances=2)
    assert page.is_file() and len(rows_of(tmp_path / "out")) == 2 * 2 * 6


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "no such/folder/here"}, "there is no folder 'no such/folder/here'"),
        ({"audio": "nowhere"}, "there is no folder and no table nowhere"),
        ({"phrase": "caf\u00e9 5"}, r"phrase: 'caf\u00e9 5' has .*which the model cannot write"),
        ({"utterances": 0}, "utterances must be at least 1, found 0"),
        ({"sigma": 2.0}, r"sigma must lie in \[0, 1\]"),
        ({"language": "en"}, "language: only a multilingual Whisper takes one"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    changes: dict[str, Any], message: str, model: Path, audio: Path, tmp_path: Path
) -> None:
    given = {"model": str(model), "audio": audio, "out": tmp_path / "out", "quick": True, "phrase": PHRASE, **changes}
    with pytest.raises(ValueError, match=message):
        audit(**given)
    assert not (tmp_path / "out").exists()


def test_texts_that_the_model_cannot_write_are_left_out(model: Path, tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(b"")
    (tmp_path / "one.txt").write_text("No. 5!")
    with pytest.raises(
        ValueError, match=r"holds no utterance to measure; .* has \['!', '\.', '5'\], which the model cannot"
    ):
        audit(str(model), tmp_path, tmp_path / "out", phrase=PHRASE)


def test_audio_that_cannot_be_read_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.wav").write_bytes(b"no audio")
    (tmp_path / "one.txt").write_text("A")
    with pytest.raises(SystemExit) as ended:
        command.main([str(model), str(tmp_path), "--out", str(tmp_path / "out"), "--phrase", PHRASE])
    assert ended.value.code == 2
    # Behind the bar of progress.
    said = capsys.readouterr().err.splitlines()[-1]
    assert "error: audio:" in said and said.endswith("one.wav: is neither FLAC, WAV, Ogg nor MP3 by its first bytes")
    assert not (tmp_path / "out").exists()
