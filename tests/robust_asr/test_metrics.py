from __future__ import annotations

import math

import jiwer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.metrics import ErrorRates, utterance_errors, word_errors
from robust_asr.text import normalize


def levenshtein(reference: list[str] | str, hypothesis: list[str] | str) -> int:
    previous = list(range(len(hypothesis) + 1))
    for row, wanted in enumerate(reference, start=1):
        current = [row]
        for column, found in enumerate(hypothesis, start=1):
            substituted = previous[column - 1] + (wanted != found)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]


def rates_of(references: list[str], hypotheses: list[str]) -> dict[str, float]:
    metric = ErrorRates()
    metric.update(references, hypotheses)
    return {name: float(rate) for name, rate in metric.compute().items()}


def test_by_hand() -> None:
    rates = rates_of(["the cat sat", "a b", "", "x"], ["the  CAT sat down", "b", "", "p q r s"])
    # One insertion; one deletion; nothing; one substitution and three insertions.
    assert (rates["insertions"], rates["deletions"], rates["substitutions"]) == (4 / 6, 1 / 6, 1 / 6)
    assert rates["wer"] == 1.0 and rates["wer_capped"] == pytest.approx(3 / 6)
    assert rates["empty_hypotheses"] == 1 / 4 and (rates["utterances"], rates["reference_words"]) == (4, 6)
    assert rates["reference_characters"] == 11 + 3 + 0 + 1
    assert rates["cer"] == pytest.approx((5 + 2 + 0 + 7) / 15)


@pytest.mark.parametrize(("reference", "hypothesis", "rate"), [("", "", 0.0), ("", "a", 1.0), ("a", "", 1.0)])
def test_empty_texts(reference: str, hypothesis: str, rate: float) -> None:
    rates = rates_of([reference], [hypothesis])
    assert rates["wer"] == rates["cer"] == rate


def test_nothing_counted_is_no_rate() -> None:
    metric = ErrorRates()
    metric.update([], [])
    assert math.isnan(metric.compute()["wer"])


TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "it’s", " "]), max_size=6).map(" ".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_against_levenshtein(pairs: list[tuple[str, str]]) -> None:
    texts = [(normalize(reference), normalize(hypothesis)) for reference, hypothesis in pairs]
    words = [(reference.split(), hypothesis.split()) for reference, hypothesis in texts]
    errors = [levenshtein(*pair) for pair in words]
    lengths = [len(reference) for reference, _ in words]
    rates = rates_of([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    counted = [utterance_errors(*pair) for pair in pairs]
    for of_pair, pair in zip(counted, texts, strict=True):
        words, characters = jiwer.process_words(*pair), jiwer.process_characters(*pair)
        assert of_pair.words == words.hits + words.deletions + words.substitutions
        assert of_pair[1:4] == (words.insertions, words.deletions, words.substitutions)
        assert of_pair.characters == characters.hits + characters.deletions + characters.substitutions
        assert of_pair.character_errors == characters.insertions + characters.deletions + characters.substitutions
    if sum(lengths):
        assert rates["wer"] == pytest.approx(sum(errors) / sum(lengths))
        assert rates["insertions"] + rates["deletions"] + rates["substitutions"] == pytest.approx(rates["wer"])
        assert rates["wer_capped"] == pytest.approx(sum(map(min, errors, lengths)) / sum(lengths))
        assert rates["cer"] == pytest.approx(
            sum(levenshtein(*pair) for pair in texts) / sum(len(text) for text, _ in texts)
        )
    assert [word_errors(*pair) for pair in pairs] == list(zip(errors, lengths, strict=True))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=6), st.integers(1, 5))
def test_batches_and_ranks_add_up(pairs: list[tuple[str, str]], cut: int) -> None:
    together, parts = ErrorRates(), [ErrorRates(), ErrorRates()]
    together.update(*map(list, zip(*pairs, strict=True)))
    for metric, part in zip(parts, (pairs[:cut], pairs[cut:]), strict=True):
        metric.update([pair[0] for pair in part], [pair[1] for pair in part])
    # What torchmetrics does over ranks: states are added.
    names = [name for name in vars(together) if name.startswith("num_")]
    assert names and all(getattr(together, name).dtype == torch.long for name in names)
    for name in names:
        setattr(parts[0], name, getattr(parts[0], name) + getattr(parts[1], name))
    torch.testing.assert_close(parts[0].compute(), together.compute())


def test_one_hypothesis_an_utterance() -> None:
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        ErrorRates().update(["a", "b"], ["a"])


def test_reset() -> None:
    metric = ErrorRates()
    metric.update(["a"], ["b"])
    metric.reset()
    metric.update(["a"], ["a"])
    assert float(metric.compute()["wer"]) == 0
