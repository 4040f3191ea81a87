"""A row whose counts do not fit its texts never changes a table in silence."""

from __future__ import annotations

import json

import pytest

from robust_asr.checks.rows import check_rows
from robust_asr.checks.rows.records import OWN_COUNTS
from robust_asr.report import PAGE, report
from robust_asr.results import ROWS, merge, read_evaluation, read_rows, write_description
from robust_asr.results.recount import recount
from robust_asr.results.seed_means import main as print_seed_means
from robust_asr.results.summary import summarize, write_summary
from tests.robust_asr.report.example import row
from tests.robust_asr.results.test_results import DESCRIBED, rows, write_lines

TARGETED = {"target": "ONE SIX", "target_errors": 1, "target_words": 2}
TAMPERED = {
    "words": 40,
    "insertions": 3,
    "deletions": 0,
    "substitutions": 9,
    "characters": 0,
    "character_errors": 99,
    "target_errors": 0,
    "target_words": 9,
}


def test_honest_rows_stay_as_they_are():
    made = [
        *rows(),
        *rows(**TARGETED),
        row("a", "clean", "test", "3", "", "it’s"),
        row("a", "clean", "test", "4", "A", ""),
    ]
    assert list(recount(made)) == made


def test_rows_are_counted_on_the_texts_that_were_compared():
    spelled = {
        "written": "Twenty-one, Mr. B.",
        "compared_reference": "21 mister b",
        "target": "GO",
        "compared_target": "go!",
    }
    count = {"words": 3, "deletions": 0, "substitutions": 0, "characters": 11, "character_errors": 0}
    made = row(
        "a", "clean", "test", "1", "TWENTY ONE MR B", "21 mister b", target_errors=3, target_words=1, **spelled, **count
    )
    assert list(recount([made])) == [made]
    (found,) = recount([made | {"compared_reference": "22 mister b"}])
    assert found["recounted"] == "substitutions was 0, is 1, character_errors was 0, is 1"


@pytest.mark.parametrize(("name", "count"), TAMPERED.items())
def test_every_count_is_counted_again(name, count):
    (honest,) = rows(ids=("1",), **TARGETED)
    (found,) = recount([honest | {name: count}])
    assert found.pop("recounted") == f"{name} was {count}, is {honest[name]}"
    assert found == honest


def test_what_a_file_says_of_recounting_is_not_believed():
    (honest,) = rows(ids=("1",))
    assert list(recount([honest | {"recounted": "nothing"}])) == [honest]


@pytest.fixture
def tampered(tmp_path):
    """A run folder with two rows whose errors are gone, and one that is honest."""
    names = ("first", "second", "third")
    made = rows(ids=names)
    changed = [entry | {"deletions": 0, "character_errors": 0} for entry in made[:2]]
    write_description(tmp_path, {**DESCRIBED, "parts": {"test": {"num_utterances": 3}}})
    return write_lines(tmp_path, *changed, made[2])


def test_the_table_holds_the_errors_of_the_texts_and_names_the_rows(tampered):
    (line,) = [line for line in summarize(read_evaluation(tampered)) if line["metric"] == "WER"]
    assert line["value"] == 50.0
    assert line["note"] == "warning: 2 recounted, because their counts did not fit their texts (first, second)"
    write_summary(read_evaluation(tampered))
    assert "2 recounted" in (tampered / "summary.csv").read_text()


def test_the_check_fails_and_names_the_rows(tampered):
    (check,) = [check for check in check_rows(read_evaluation(tampered)) if check.name == OWN_COUNTS.name]
    assert check.verdict == "fail" and check.value == 2
    assert (
        "2 of 3 rows were recounted: first (deletions was 0, is 1, character_errors was 0, is 4), second"
        in check.detail
    )


def test_the_report_names_the_rows(tampered, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    report([tampered], out)
    page = (out / PAGE).read_text()
    assert "2 recounted, because their counts did not fit their texts (first, second)" in page
    assert "2 recounted" in (out / "summary.csv").read_text()


def test_means_over_seeds_name_the_rows(tampered, capsys):
    about = json.loads((tampered / "evaluation.json").read_text())
    about["systems"].pop("b")
    (tampered / "evaluation.json").write_text(json.dumps(about))
    other, (system,) = tampered / "other", about["systems"].values()
    other.mkdir()
    for name in ("evaluation.json", ROWS):
        (other / name).write_text((tampered / name).read_text().replace(system["hash"], "another seed"))
    print_seed_means([str(tampered), str(other)])
    assert "warning: 2 recounted" in capsys.readouterr().out


def test_merging_leaves_the_evidence(tampered):
    before = read_rows(tampered)
    merge(tampered)
    assert read_rows(tampered) == before and "recounted" not in (tampered / ROWS).read_text()
    assert sum("recounted" in entry for entry in read_evaluation(tampered).rows) == 2
