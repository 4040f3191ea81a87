"""Differences between conditions: by hand, in a file that a claim can name."""

from __future__ import annotations

from pathlib import Path

import pytest

from robust_asr.results.claims import read_claims
from robust_asr.results.condition_differences import main
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example


@pytest.fixture
def run(tmp_path: Path) -> Path:
    conditions = {name: CONDITIONS[name] for name in ("clean", "pgd7-0.0001", "pgd7-0.01")}
    systems = {"baseline": SYSTEMS["baseline"]}
    return write_example(tmp_path / "run", systems=systems, conditions=conditions, num_utterances=30, keep_audio=0)


def test_a_stronger_attack_is_compared_with_a_weaker_one(run: Path, tmp_path: Path) -> None:
    main([str(run), "--minus", "pgd7-0.0001", "--out", str(tmp_path / "differences.csv")])
    (tmp_path / "claims.csv").write_text(
        "claim,results,condition,system,baseline,direction,margin\n"
        "a larger budget does more,differences.csv,pgd7-0.01,baseline,baseline under pgd7-0.0001,higher,3\n"
        "any attack does something,differences.csv,clean,baseline,baseline under pgd7-0.0001,lower,0\n"
    )
    stronger, weaker = (line for lines in read_claims(tmp_path / "claims.csv").values() for line in lines)
    assert stronger.verdict == "holds" and stronger.found.n == 30 and weaker.found.value < 0


def test_a_condition_that_is_not_there_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(run), "--minus", "cw", "--out", str(tmp_path / "differences.csv")])
    assert stopped.value.code == 2 and not (tmp_path / "differences.csv").exists()
    assert "holds no condition 'cw', found clean, pgd7-0.0001, pgd7-0.01" in capsys.readouterr().err
