"""The standard evaluation beside the other attacks of its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import Clean
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.attacks.standard import Standard
from robust_asr.checks import check_rows
from robust_asr.checks.rows.ensembles import QUERIES, STRONGEST
from robust_asr.results import ROWS, Evaluation, read_evaluation
from robust_asr.threat import Linf
from tests.listeners import five_words
from tests.robust_asr.checks.honest import evaluated, spoken
from tests.robust_asr.checks.table import verdicts

CONDITIONS = {
    "clean": Clean(),
    "standard": Standard(Linf(0.01), forwards=60),
    "same": PaperPGD(Linf(0.01)),
    "other size": PaperPGD(Linf(0.02)),
    "other goal": PaperPGD(Linf(0.01), goal=Targeted(PhraseList(["YES NO", "GO STOP HELP"]))),
}


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluated(tmp_path_factory.mktemp("run"), {"plain": five_words()}, CONDITIONS, spoken(8, seed=2))


def changed(evaluation: Evaluation, folder: Path, condition: str, **fields: object) -> Evaluation:
    """The evaluation with other fields in the rows of a condition, as a folder of its own."""
    for path in evaluation.run_dir.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    rows = [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
    rows = [row | fields if row["condition"] == condition else row for row in rows]
    (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_evaluation(folder)


def test_an_honest_standard_evaluation_passes(standard: Evaluation) -> None:
    checks = check_rows(standard)
    for question in (STRONGEST, QUERIES):
        assert verdicts(checks, question) == {"fail": set(), "not run": set(), "pass": {("plain", "standard")}}
    (check,) = [check for check in checks if check.name == STRONGEST.name]
    assert "beside same" in check.detail, "compared with attacks of its ball and its goal alone"


def test_a_weak_standard_evaluation_fails(standard: Evaluation, tmp_path: Path) -> None:
    texts = {row["id"]: row["reference"] for row in standard.rows}
    weak = changed(standard, tmp_path, "same", hypothesis=" ".join(["YES"] * 20), words=0)
    assert texts and verdicts(check_rows(weak), STRONGEST)["fail"] == {("plain", "standard")}


def test_queries_that_win_fail(standard: Evaluation, tmp_path: Path) -> None:
    masked = changed(standard, tmp_path, "standard", member="square", success=True)
    assert verdicts(check_rows(masked), QUERIES)["fail"] == {("plain", "standard")}
