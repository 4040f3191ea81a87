"""Texts as people type them, in the letters of an alphabet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from datamodules.manifest import Manifest
from datamodules.prepare import main
from datamodules.preparing.normalisation import Normaliser
from robust_asr.text import LIBRISPEECH_CHARACTERS
from tests.datamodules.conftest import write_utterance


@pytest.fixture(scope="module")
def normaliser() -> Normaliser:
    return Normaliser(LIBRISPEECH_CHARACTERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "HELLO WORLD"),
        ("it’s DON´T rock ‘n’ roll", "IT'S DON'T ROCK 'N' ROLL"),
        ("naïve café Łódź straße", "NAIVE CAFE LODZ STRASSE"),
        ("naïve zero​width", "NAIVE ZEROWIDTH"),
        ("well-known — one—two (three) “four”", "WELL KNOWN ONE TWO THREE FOUR"),
        ("In 1984, 2,500 men and 12 dogs.", "IN NINETEEN EIGHTY FOUR TWO THOUSAND FIVE HUNDRED MEN AND TWELVE DOGS"),
        ("the 21st of 3.5", "THE TWENTY FIRST OF THREE POINT FIVE"),
        ("0 10 105", "ZERO TEN ONE HUNDRED AND FIVE"),
        ("$5 3:30 007 5% 1-2", "$5 3:30 007 5% 1-2"),
        ("AT&T a/b", "AT&T A/B"),
        ("да", "ДА"),
        ("...", ""),
    ],
)
def test_texts_in_the_alphabet(text: str, expected: str, normaliser: Normaliser):
    assert normaliser(text) == expected
    assert normaliser(expected) == expected


def test_a_wider_alphabet_keeps_its_letters(normaliser: Normaliser):
    assert Normaliser(LIBRISPEECH_CHARACTERS + "Ï-")("naïve café") == "NAÏVE CAFE"


def test_prepare_says_how_many_texts_it_changed(normaliser: Normaliser, tmp_path: Path, capsys):
    for utterance, text in {"1-1-0": "GOOD", "1-1-1": "Mr. 5", "1-1-2": "$5", "1-1-3": "?"}.items():
        write_utterance(tmp_path / "corpus", "train", utterance, text, seconds=0.1)
    command = ["librispeech", str(tmp_path / "corpus"), str(tmp_path / "out"), "--num-jobs", "1"]
    assert main([*command, "--normalise", "--alphabet"]) == 0
    shown = capsys.readouterr().out
    assert "train: 2 of 4 texts were changed" in shown and "1-1-3 has no words in its text '?'" in shown
    assert "2 findings, 2 utterances left out" in shown
    cuts = Manifest(tmp_path / "out/train.jsonl.gz").verified()
    assert {cut.id: cut.supervisions[0].text for cut in cuts} == {"1-1-0": "GOOD", "1-1-1": "MR FIVE"}


def test_without_the_packages_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch, capsys):
    write_utterance(tmp_path / "corpus", "train", "1-1-0", "GOOD", seconds=0.1)
    monkeypatch.setitem(sys.modules, "num2words", None)
    monkeypatch.setitem(sys.modules, "anyascii", None)
    assert main(["librispeech", str(tmp_path / "corpus"), str(tmp_path / "out"), "--normalise"]) == 2
    assert "--normalise needs anyascii, which is not installed" in capsys.readouterr().err
