from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robust_asr.text import LIBRISPEECH_CHARACTERS, CharacterTokenizer, normalize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  It’s\ta  test\n", "IT'S A TEST"),
        ("o`clock ʼtis ‘so", "O'CLOCK 'TIS 'SO"),
        ("cafe\u0301", "CAF\u00c9"),
        ("straße", "STRASSE"),
        ("", ""),
        (" \u00a0\u3000 ", ""),
    ],
)
def test_normalize_by_hand(text: str, expected: str) -> None:
    assert normalize(text) == expected


@given(st.text())
@example("\u0149")
@example("\u0390")
def test_normalize_is_idempotent(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(), st.text())
def test_normalize_goes_by_words(first: str, second: str) -> None:
    parts = [part for part in (normalize(first), normalize(second)) if part]
    assert normalize(f"{first} {second}") == " ".join(parts)


@given(st.text(alphabet="abcXYZ' ", max_size=30))
def test_tokens_are_the_normalised_text(text: str) -> None:
    tokenizer = CharacterTokenizer()
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == "".join(tokenizer.pieces(tokens)) == normalize(text)
    assert all(0 < token < tokenizer.size for token in tokens)


def test_ids_are_those_of_deepspeech2() -> None:
    tokenizer = CharacterTokenizer()
    assert tokenizer.size == 29 and tokenizer.blank == 0
    assert tokenizer.encode("'A Z") == [1, 2, 28, 27]
    assert tokenizer.decode([0, 2, 0, 0, 3]) == "AB"


def test_targets_are_padded_with_zeros() -> None:
    targets = CharacterTokenizer("AB ").targets(["ABA", "", "B"])
    assert targets.tokens.tolist() == [[1, 2, 1], [0, 0, 0], [2, 0, 0]]
    assert targets.token_lengths.tolist() == [3, 0, 1]
    assert CharacterTokenizer().targets(["", ""]).tokens.shape == (2, 0)


def test_what_it_cannot_write_is_named() -> None:
    with pytest.raises(ValueError, match=r"'NO 7' has \['7'\]"):
        CharacterTokenizer(LIBRISPEECH_CHARACTERS).encode("no 7")


@pytest.mark.parametrize("characters", ["", "ABA"])
def test_characters_are_distinct(characters: str) -> None:
    with pytest.raises(ValueError, match="distinct"):
        CharacterTokenizer(characters)


def test_what_is_unwritable_is_what_encode_refuses():
    tokenizer = CharacterTokenizer()
    assert tokenizer.unwritable("it’s fine") == []
    assert tokenizer.unwritable("Mr. 5, naïve") == [",", ".", "5", "Ï"]
