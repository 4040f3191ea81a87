"""ROVER gives what NIST's program gives (SCTK 2.4.10, its results in rover_golden.json), and more where that one breaks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.defenses import word_network
from robust_asr.defenses.rover import rover
from robust_asr.defenses.word_network import Arc, WordNetwork, single

GOLDEN = json.loads(Path(__file__).with_name("rover_golden.json").read_text())
TRANSCRIPTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=7), min_size=1, max_size=6)


@pytest.mark.parametrize("case", GOLDEN, ids=[str(number) for number in range(len(GOLDEN))])
def test_equals_the_program_of_nist(case: dict) -> None:
    given = dict(case)
    result = given.pop("result").split()
    hypotheses = [text.split() for text in given.pop("hypotheses")]
    assert rover(hypotheses, **given) == result


def test_ties_go_to_the_earlier_transcript_and_to_words_that_were_inserted() -> None:
    assert rover([["a"], ["b"]]) == ["a"]
    # NULL comes after the word that it ties with where the first transcript has one, and after it where the second inserts it.
    assert rover([["a", "b"], ["a"]]) == ["a", "b"]
    assert rover([["a"], ["a", "b"]]) == ["a", "b"]
    assert rover([["a"], ["a"], ["a", "b"]]) == ["a"]


def test_case_is_kept_and_not_compared() -> None:
    assert rover([["Yes", "No"], ["yes", "GO"], ["YES", "no"]]) == ["Yes", "No"]


def test_silences_in_common_keep_words_apart() -> None:
    """Without times the second word stands beside the first of the others."""
    hypotheses = [["a"], ["b"], ["b"]]
    early, late = [(0.0, 1.0)], [(10.0, 11.0)]
    assert rover(hypotheses) == ["b"]
    assert rover(hypotheses, [early, late, late]) == ["b"]
    assert rover([["a", "a"], ["b", "a"], ["a"]], [[*early, *late], [*early, *late], late]) == ["a", "a"]


@given(TRANSCRIPTS)
def test_copies_agree_with_themselves(transcripts: list[list[str]]) -> None:
    for words in transcripts:
        assert rover([words] * 3) == words
    assert rover([*transcripts, *[transcripts[0]] * len(transcripts)]) == transcripts[0]


@given(TRANSCRIPTS)
def test_a_transcript_without_words_votes_for_nothing(transcripts: list[list[str]]) -> None:
    assert rover([*transcripts, *[[] for _ in range(len(transcripts) + 1)]]) == []
    for words in transcripts:
        assert rover([[], words, words]) == words


@given(TRANSCRIPTS)
def test_what_is_left_out_of_the_alignment_changes_nothing(transcripts: list[list[str]]) -> None:
    """All cells are computed where the guess of the cost is high."""
    networks = [WordNetwork(), WordNetwork(_guess=1e6)]
    for words in transcripts:
        for network in networks:
            network.merge([Arc(word, word) for word in words])
            network._guess = max(network._guess, 1e6) if network is networks[1] else network._guess
    assert networks[0].sets == networks[1].sets


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=3), max_size=5), TRANSCRIPTS)
def test_no_alignment_is_cheaper(sets: list[list[str | None]], transcripts: list[list[str]]) -> None:
    words = transcripts[0]
    network = WordNetwork([[Arc(key, key or "") for key in arcs] for arcs in sets], 1)
    cost, steps = network._aligned_within(words, len(words))
    assert cost == pytest.approx(cheapest(sets, words), abs=1e-4)
    assert [place for step, _, place in reversed(steps) if step != word_network._DELETE] == list(range(len(words)))


def cheapest(sets: Sequence[Sequence[str | None]], words: Sequence[str]) -> float:
    """The cost of aligning words to sets, by recursion; an arc is chosen anew in each set."""
    if not sets:
        return 3.0 * len(words)
    options = [cheapest(sets, words[:-1]) + 3 if words else math.inf]
    for key in sets[-1]:
        options.append(cheapest(sets[:-1], words) + (0.001 if key is None else 3))
        if words:
            cost = 0 if key == words[-1] else 1 if key is None else 4
            options.append(cheapest(sets[:-1], words[:-1]) + cost)
    return min(options)


@given(st.floats(1e-3, 1e6))
def test_rounding_is_that_of_single_precision(value: float) -> None:
    assert single(value) == float(np.float32(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hypotheses": []}, "hypotheses: there is none to vote over"),
        ({"hypotheses": ["a b"]}, "hypotheses: each is a list of words, found a text"),
        ({"hypotheses": [["a", ""]]}, "hypotheses: a word is empty; leave it out"),
        ({"hypotheses": "a b"}, "hypotheses: each is a list of words, found a text"),
        ({"hypotheses": [["a"]], "times": [[]]}, r"times: one is needed for each word, \[1\] words, found \[0\]"),
        (
            {"hypotheses": [["a"]], "confidences": [[1, 1]]},
            r"confidences: one is needed for each word, \[1\] words, found",
        ),
        ({"hypotheses": [["a"]], "frequency_weight": 1.5}, "frequency_weight is 1.5, accepted is 0 to 1"),
        ({"hypotheses": [["a"]], "frequency_weight": 0.5}, "frequency_weight is 0.5, below 1, which needs confidences"),
        ({"hypotheses": [["a"]], "rule": "median"}, "rule is 'median', accepted are average and maximum"),
    ],
)
def test_what_it_cannot_vote_over_is_named(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rover(**given)
