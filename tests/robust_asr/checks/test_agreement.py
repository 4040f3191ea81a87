"""Two evaluations of the same agree; chance in the search of one of them is named, an attack that went another way is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from robust_asr.checks import lines
from robust_asr.checks.__main__ import main
from robust_asr.checks.rows.agreement import HEARD_AGAIN, check_agreement
from robust_asr.report.runs import read_runs
from robust_asr.results import Evaluation, Row, read_evaluation

SYSTEMS = ("plain", "smoothed")


def copied(honest: Evaluation, folder: Path, change: Callable[[Row], Row]) -> Evaluation:
    """The same evaluation in another folder, its rows changed."""
    folder.mkdir()
    (folder / "evaluation.json").write_text((honest.run_dir / "evaluation.json").read_text())
    rows = [json.loads(line) for line in (honest.run_dir / "results.jsonl").read_text().splitlines()]
    (folder / "results.jsonl").write_text("".join(json.dumps(change(row)) + "\n" for row in rows))
    return read_evaluation(folder)


def found(*evaluations: Evaluation) -> list[tuple[str, str, str]]:
    named = dict(zip("abc", evaluations, strict=False))
    return [(name, check.system, check.verdict) for name, check in check_agreement(named)]


def test_the_same_rows_agree_in_every_pair(honest: Evaluation, tmp_path: Path) -> None:
    rounded = copied(honest, tmp_path / "rounded", lambda row: row | {"loss": row["loss"] * (1 + 1e-6)})
    again = copied(honest, tmp_path / "again", lambda row: row)
    expected = [(name, system, "pass") for name in "aab" for system in SYSTEMS]
    assert found(honest, rounded, again) == expected
    assert found(honest) == []


@pytest.mark.parametrize(("every", "verdict"), [(149, "pass"), (50, "fail")])
def test_other_transcripts_of_the_same_loss_are_chance(
    honest: Evaluation, tmp_path: Path, every: int, verdict: str
) -> None:
    """Up to one in a hundred may be tipped by rounding."""
    count: Counter[str] = Counter()

    def change(row: Row) -> Row:
        count[row["system"]] += 1
        return row | {"hypothesis": "chance"} if count[row["system"]] % every == 0 else row

    assert found(honest, copied(honest, tmp_path / "chance", change)) == [("a", system, verdict) for system in SYSTEMS]


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row | {"hypothesis": "other", "loss": row["loss"] * 1.01 + 0.01},
        lambda row: row | {"hypothesis": "other", "loss": None},
        lambda row: row | {"hypothesis": "other", "hashes": row["hashes"] | {"system": "0"}},
        lambda row: row | {"hypothesis": "other", "hashes": row["hashes"] | {"condition": "0"}},
        lambda row: row | {"hypothesis": "other", "hashes": row["hashes"] | {"data": "0"}},
    ],
    ids=["another loss", "no loss", "another system", "another condition", "another recording"],
)
def test_what_was_not_the_same_is_not_compared(
    honest: Evaluation, tmp_path: Path, change: Callable[[Row], Row]
) -> None:
    assert found(honest, copied(honest, tmp_path / "other", change)) == []


def test_command_and_report_say_so(honest: Evaluation, tmp_path: Path, capsys) -> None:
    chance = copied(honest, tmp_path / "chance", lambda row: row | {"hypothesis": row["hypothesis"] + " chance"})
    with pytest.raises(SystemExit) as ended:
        main([str(honest.run_dir), str(chance.run_dir)])
    printed = capsys.readouterr().out.split("between them:\n")[1]
    assert ended.value.code == 1 and printed.startswith(f"FAIL: {HEARD_AGAIN.name} (plain): ")
    assert f"others in {chance.run_dir}: tones-1-000, " in printed
    shown = lines(read_runs([honest.run_dir, chance.run_dir]).checks, "fail")
    # Told apart, as what they heard differs.
    assert [line.split(": ")[1] for line in shown] == [
        f"{HEARD_AGAIN.name} ({system} ({honest.run_dir.name}))" for system in SYSTEMS
    ]
