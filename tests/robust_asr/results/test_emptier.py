"""A gain that comes from emptier transcripts: found where it is, not where it is not."""

from __future__ import annotations

from pathlib import Path

from robust_asr.results import Evaluation
from robust_asr.results.emptier import emptier_cells
from tests.robust_asr.report.example import CONDITIONS, row

REFERENCE = "A B C D E"


def evaluation(before: list[str], after: list[str]) -> Evaluation:
    rows = [
        row(system, "pgd", "test", f"{index:03d}", REFERENCE, heard)
        for system, side in (("first", before), ("second", after))
        for index, heard in enumerate(side)
    ]
    systems = {name: {"hash": name, "columns": {}} for name in ("first", "second")}
    conditions = {"pgd": {"hash": "c", "columns": CONDITIONS["pgd7-0.01"]}}
    return Evaluation(Path(), systems, conditions, {"test": {"num_utterances": len(before)}}, tuple(rows))


# Seven errors of five words each: WER 140 %.
BABBLE = "X X X X X Y Y"


def test_silence_beats_babble_and_is_found():
    """40 of 100 transcripts are empty: 5 errors for each instead of 7, deletions 40 % instead of none."""
    (found,) = emptier_cells(evaluation([BABBLE] * 100, [""] * 40 + [BABBLE] * 60)).items()
    assert found[0] == ("second", "pgd", "test")
    assert found[1].gain == 100 * 2 * 40 / 500 and found[1].empty == (0, 40) and found[1].deletions == (0, 40)
    assert found[1].sentence("first") == (
        "16.0 points of WER below first, with 40.0 % empty transcripts (0.0 % there) and 40.0 % of the words deleted (0.0 %)"
    )


def test_deleted_words_are_found_without_an_empty_transcript():
    found = emptier_cells(evaluation([BABBLE] * 50, ["A"] * 50))
    assert found["second", "pgd", "test"].deletions == (0, 80)


def test_a_gain_in_words_is_a_gain():
    assert emptier_cells(evaluation([BABBLE] * 50, ["A B C D X"] * 50)) == {}


def test_emptier_without_a_gain_is_no_such_finding():
    assert emptier_cells(evaluation([REFERENCE] * 50, [""] * 50)) == {}


def test_a_small_or_uncertain_rise_is_not_clear():
    # 4 points, below the threshold.
    assert emptier_cells(evaluation([BABBLE] * 100, [""] * 4 + ["A B C D X"] * 96)) == {}
    # One of ten: a resample without it is likely.
    assert emptier_cells(evaluation([BABBLE] * 10, [""] + ["A B C D X"] * 9)) == {}


def test_only_shared_utterances_count_and_nothing_is_nothing():
    given = evaluation([BABBLE] * 20, [""] * 20)
    second = tuple(entry for entry in given.rows if entry["system"] == "second")
    assert emptier_cells(Evaluation(Path(), given.systems, given.conditions, given.parts, second)) == {}
    assert emptier_cells(Evaluation(Path(), {}, given.conditions, given.parts, ())) == {}


def test_a_gain_in_heard_words_may_come_with_deletions():
    """Robust systems drop words: 4 of 5 are right instead of none, one is deleted, and two words are no longer inserted."""
    assert emptier_cells(evaluation([BABBLE] * 50, ["A B C D"] * 50)) == {}
    # Substitutions that become deletions move no error; the gain is one word heard.
    assert emptier_cells(evaluation(["X X X X X"] * 50, ["A"] * 50)) == {}


def test_a_gain_is_words_heard_and_words_no_longer_inserted():
    (gain,) = emptier_cells(evaluation([BABBLE] * 50, ["A"] * 50)).values()
    assert gain.gain == 100 * (7 - 4) / 5 and gain.heard == 100 / 5
