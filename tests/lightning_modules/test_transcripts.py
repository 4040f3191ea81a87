"""Error rates of rows against hand counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_modules.transcripts import main, mean_summary, summary


def rows(*errors: int) -> list[dict]:
    return [{"id": str(index), "hypothesis": "A", "errors": error, "words": 4} for index, error in enumerate(errors)]


def test_rate_is_over_all_words() -> None:
    assert summary(rows(1, 0, 3)).startswith("WER 33.33 % [")
    assert summary(rows(0, 0)).startswith("WER 0.00 % [0.00, 0.00], 2 utterances, 8 words, 0.0 % empty")


def test_mean_over_runs_is_the_mean_of_their_rates() -> None:
    assert mean_summary([rows(1, 0), rows(3, 0)]).startswith("mean of 2: WER 25.00 % [")


def test_runs_on_other_utterances_have_no_mean() -> None:
    with pytest.raises(ValueError, match="different utterances"):
        mean_summary([rows(1), rows(1, 2)])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for seed, run in enumerate((rows(1, 0), rows(3, 0))):
        paths.append(str(tmp_path / f"{seed}.jsonl"))
        Path(paths[-1]).write_text("".join(json.dumps(row) + "\n" for row in run))
    main(paths)
    out = capsys.readouterr().out
    assert "WER 12.50 %" in out and "WER 37.50 %" in out and "mean of 2: WER 25.00 %" in out
