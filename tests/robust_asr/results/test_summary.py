"""Numbers of a table against counts by hand; which interval each of them has."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from robust_asr.results import Evaluation
from robust_asr.results.intervals import difference_interval, rate_interval
from robust_asr.results.summary import (
    COLUMNS,
    PAPER_COLUMNS,
    cell_metrics,
    differences,
    headline,
    is_attack,
    paired_difference,
    remarks,
    summarize,
    summary_of,
    write_summary,
    write_table,
)
from tests.robust_asr.report.example import CONDITIONS, row

CLEAN, ATTACK = CONDITIONS["clean"], CONDITIONS["pgd7-0.01"]


def pair(system: str = "a", condition: str = "clean", **more) -> list[dict]:
    """Four words with one error of each kind; two words, three errors, nothing heard of it but insertions."""
    return [
        row(system, condition, "test", "1", "THE CAT SAT DOWN", "THE A CAT SIT", **more),
        row(system, condition, "test", "2", "GO HOME", "NO HOW THEN", **more),
    ]


def evaluation(*rows: dict, sizes: int = 2, systems: tuple[str, ...] = ("a", "b")) -> Evaluation:
    conditions = {name: {"hash": name, "columns": columns} for name, columns in (("clean", CLEAN), ("pgd", ATTACK))}
    named = {
        name: {"hash": name, "columns": {"model": "M", "defense": "none", "sigma": 0.01, "system": "=forged"}}
        for name in systems
    }
    return Evaluation(Path(), named, conditions, {"test": {"num_utterances": sizes}}, rows)


def value(lines: list[dict], metric: str) -> float:
    (line,) = [line for line in lines if line["metric"] == metric]
    return line["value"]


def test_rates_of_an_example_done_by_hand():
    """THE * CAT SAT DOWN / THE A CAT SIT *: one of each. GO HOME * / NO HOW THEN: two substituted, one inserted."""
    lines = cell_metrics(pair(), attacked=False)
    assert value(lines, "WER") == pytest.approx(100 * 6 / 6)
    # Utterance 2 has three errors and two words.
    assert value(lines, "WER_capped") == pytest.approx(100 * 5 / 6)
    rates = [value(lines, name) for name in ("insertions", "deletions", "substitutions")]
    assert rates == pytest.approx([100 * 2 / 6, 100 * 1 / 6, 100 * 3 / 6])
    assert value(lines, "empty_hypotheses") == 0
    assert [line["metric"] for line in lines] == [
        "WER",
        "WER_capped",
        "CER",
        "insertions",
        "deletions",
        "substitutions",
        "utterances_with_error",
        "empty_hypotheses",
    ]
    assert all(line["unit"] == "%" and line["n"] == 2 for line in lines)


def test_characters_are_counted_over_all_characters():
    """CAT / CUT is one of three, GO HOME / GO HOMES one of seven."""
    rows = [row("a", "c", "p", "1", "CAT", "CUT"), row("a", "c", "p", "2", "GO HOME", "GO HOMES")]
    assert value(cell_metrics(rows, attacked=False), "CER") == pytest.approx(100 * 2 / 10)


def test_an_attack_is_measured_against_both_texts():
    """Heard OPEN IT: three errors to A B C, one to the target OPEN; the second reaches its target."""
    rows = [
        row(
            "a",
            "c",
            "p",
            "1",
            "A B C",
            "OPEN IT",
            target="OPEN",
            target_errors=1,
            target_words=1,
            success=False,
            snr_db=30.0,
        ),
        row("a", "c", "p", "2", "A", "OPEN", target="OPEN", target_errors=0, target_words=1, success=True, snr_db=20.0),
    ]
    lines = cell_metrics(rows, attacked=True)
    assert value(lines, "GT_WER") == pytest.approx(100) and value(lines, "TGT_WER") == pytest.approx(50)
    assert value(lines, "success_rate") == value(lines, "unsuccessful_rate") == 50
    assert value(lines, "SNR") == 25 and "WER" not in {line["metric"] for line in lines}


def test_what_was_not_perturbed_has_no_snr_and_is_counted():
    rows = pair(condition="pgd", snr_db=20.0)
    rows[0] |= {"snr_db": None, "status": "refused", "note": "its audio is silent"}
    (line, *_) = summarize(evaluation(*rows))
    assert line["note"] == "1 refused by the attack; 1 not perturbed, not in SNR"
    (snr,) = [line for line in summarize(evaluation(*rows)) if line["metric"] == "SNR"]
    assert (snr["value"], snr["n"], snr["unit"]) == (20, 1, "dB")


@pytest.mark.parametrize(
    ("statuses", "note"),
    [
        (["attacked"] * 4, ""),
        (["attacked", "refused", "refused", "attacked"], "2 refused by the attack"),
        (["broken off", "attacked", "attacked", "attacked"], "1 broken off"),
        (["masked gradient"] * 3 + ["attacked"], "warning: gradient masked on 3"),
        (
            ["refused", "masked gradient", "broken off", "attacked"],
            "warning: gradient masked on 1; 1 refused by the attack; 1 broken off",
        ),
    ],
)
def test_each_status_is_counted_by_itself_whatever_the_note_says(statuses, note):
    """A masked gradient warns, and is no excuse: that utterance was attacked."""
    rows = [
        row("a", "pgd", "test", str(index), "ONE", "TWO", snr_db=9.0, status=status, note="not attacked: no")
        for index, status in enumerate(statuses)
    ]
    assert {line["note"] for line in summarize(evaluation(*rows, sizes=4))} == {note}


def test_an_empty_transcript_is_one_of_spaces_too():
    rows = [row("a", "c", "p", str(index), "ONE", heard) for index, heard in enumerate(("", " ", "ONE", "TWO"))]
    assert value(cell_metrics(rows, attacked=False), "empty_hypotheses") == 50


@pytest.mark.parametrize(("heard", "expected"), [("", 0.0), ("A B C", 100.0)])
def test_without_a_word_any_error_is_all(heard, expected):
    lines = cell_metrics([row("a", "c", "p", "1", "", heard)], attacked=False)
    for metric in ("WER", "CER"):
        (line,) = [line for line in lines if line["metric"] == metric]
        assert (line["value"], *limits(line)) == (expected, expected, expected)
    both = [row("a", "c", "p", "1", "", heard)], [row("b", "c", "p", "1", "", "")]
    assert paired_difference(*both) == (expected, expected, expected)


def test_an_utterance_without_words_beside_others_is_left_out_and_counted():
    rows = [row("a", "c", "p", "1", "ONE TWO", "ONE"), row("a", "c", "p", "2", "", "NOISE AND MORE")]
    lines = {line["metric"]: line for line in cell_metrics(rows, attacked=False)}
    assert lines == {line["metric"]: line for line in cell_metrics(rows[:1], attacked=False)}
    assert lines["WER"]["value"] == 50 and lines["WER"]["n"] == 1
    assert "1 without words in the reference, not counted" in remarks(rows)
    better = [row("b", "c", "p", "1", "ONE TWO", "ONE TWO"), row("b", "c", "p", "2", "", "")]
    assert paired_difference(better, rows)[0] == pytest.approx(-50)


def test_counts_at_their_limit_stay_finite():
    rows = [
        row("a", "c", "p", str(i), "A", "B", words=2**53 - 1, substitutions=2**53 - 1, seconds=1e299) for i in (1, 2)
    ]
    lines = cell_metrics(rows, attacked=False)
    assert all(math.isfinite(line[name]) for line in lines for name in ("value", "ci_low", "ci_high"))


def test_intervals_are_those_over_utterances_weighed_by_words():
    words = [3, 10, 5, 8, 2, 9, 30]
    errors = [[1, 0, 5, 2, 0, 3, 11], [0, 0, 2, 2, 1, 0, 4]]
    sides = [
        [
            row("a", "c", "p", str(i), "A", "A", words=w, deletions=e)
            for i, (w, e) in enumerate(zip(words, side, strict=True))
        ]
        for side in errors
    ]
    (line, *_) = cell_metrics(sides[0], attacked=False)
    assert limits(line) == pytest.approx(percent(rate_interval(tensor(errors[0]), tensor(words))))
    gain, low, high = paired_difference(sides[1], sides[0])
    change = [after - before for before, after in zip(*errors, strict=True)]
    assert gain == pytest.approx(100 * sum(change) / sum(words))
    assert (low, high) == pytest.approx(percent(difference_interval(tensor(change), tensor(words))))


def test_no_utterance_in_error_is_no_proof_that_none_can_be():
    """0 of 16 is [0, 20.6], 16 of 16 is [79.4, 100]; the share of utterances with an error is beside the rates."""
    rows = [row("a", "c", "p", str(i), "A B", "A B", snr_db=20.0, success=False) for i in range(16)]
    lines = {line["metric"]: line for line in cell_metrics(rows, attacked=True)}
    for metric in ("GT_WER", "WER_capped", "insertions", "utterances_with_error", "empty_hypotheses", "success_rate"):
        assert (lines[metric]["value"], *limits(lines[metric])) == pytest.approx((0, 0, 20.59), abs=0.01), metric
    assert limits(lines["unsuccessful_rate"]) == pytest.approx((79.41, 100), abs=0.01)
    assert limits(lines["SNR"]) == (20, 20)
    wrong = {line["metric"]: line for line in cell_metrics([entry | {"deletions": 2} for entry in rows], attacked=True)}
    assert (
        limits(wrong["WER_capped"]) == limits(wrong["utterances_with_error"]) == pytest.approx((79.41, 100), abs=0.01)
    )


def limits(line: dict) -> tuple[float, float]:
    return line["ci_low"], line["ci_high"]


def percent(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, ...]:
    return tuple(100 * float(limit) for limit in found)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_shared_difficulty_cancels_in_the_paired_interval():
    """An error or two less on each of 20 utterances of very different difficulty: certain, though either rate alone is not."""
    before = [row("a", "c", "p", f"{i:02d}", "A", "A", words=10, deletions=2 + i % 9) for i in range(20)]
    after = [entry | {"deletions": entry["deletions"] - 1 - (i % 2)} for i, entry in enumerate(before)]
    value, low, high = paired_difference(after, before)
    (alone, *_) = cell_metrics(before, attacked=False)
    assert value == pytest.approx(-15) and high - low < 5 < 20 < alone["ci_high"] - alone["ci_low"]


def test_every_pair_of_systems_has_its_difference():
    """Those to the first system come first; b minus c is c minus b with its sign turned, and stands there once."""
    rows = [*pair("a"), *pair("b"), *pair("c")]
    lines = differences(evaluation(*rows, systems=("a", "b", "c")))
    assert [(line["system"], line["baseline"]) for line in lines] == [("b", "a"), ("c", "a"), ("c", "b")]


def test_only_the_same_utterances_are_compared():
    rows = [*pair("a"), *pair("b")[1:]]
    (line,) = differences(evaluation(*rows))
    assert (line["n"], line["value"], line["metric"], line["baseline"]) == (1, 0.0, "WER", "a")
    with pytest.raises(ValueError, match="the same utterances in the same order"):
        paired_difference(pair("a"), pair("b")[::-1])


def test_there_may_be_nothing_to_compare():
    assert differences(evaluation(*pair("b"))) == []
    assert differences(evaluation(systems=())) == [] and summarize(evaluation(systems=())) == []


def test_lines_stand_under_the_columns_of_the_papers():
    lines = summarize(evaluation(*pair(), *pair("b", "pgd"), sizes=3))
    assert [line["condition"] for line in lines if line["metric"] in ("WER", "GT_WER")] == ["clean", "pgd"]
    first, last = lines[0], lines[-1]
    assert set(COLUMNS) >= set(first) and set(PAPER_COLUMNS) <= set(first)
    assert (first["model"], first["sigma"], first["eval_set"], first["attack"]) == ("M", 0.01, "test", "none")
    assert (last["attack"], last["norm"], last["strength"], last["knowledge"]) == (
        "PGD-7 targeted",
        "Linf",
        0.01,
        "exact",
    )
    assert first["note"] == "2 of 3 utterances" and first["seconds"] == pytest.approx(0.02)


def test_no_column_of_a_file_renames_a_system():
    assert {line["system"] for line in summarize(evaluation(*pair(), *pair("b")))} == {"a", "b"}


def test_noise_is_no_attack():
    assert [is_attack({"columns": CONDITIONS[name]}) for name in ("clean", "noise-0.01", "pgd7-0.01")] == [
        False,
        False,
        True,
    ]


def test_files_hold_what_was_summarised(tmp_path):
    given = evaluation(*pair("a", "pgd"), *pair("b", "pgd"))
    summary = write_summary(Evaluation(tmp_path, given.systems, given.conditions, given.parts, given.rows))
    assert summary == summary_of(given) and headline(given, summary) == headline(given)
    lines = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert list(lines[0]) == COLUMNS and len(lines) == len(summarize(given))
    assert float(lines[0]["value"]) == pytest.approx(100) and lines[0]["metric"] == "GT_WER"
    (difference,) = csv.DictReader((tmp_path / "differences.csv").open())
    assert (difference["system"], difference["baseline"], float(difference["value"])) == ("b", "a", 0.0)


def test_no_cell_is_a_formula(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": "=1+1", "b": "-2", "c": -2.0}, {"a": None, "b": "x\n=1"}], ["a", "b", "c"])
    assert (tmp_path / "t.csv").read_text() == "a,b,c\n'=1+1,'-2,-2.0\n,x\ufffd=1,\n"
