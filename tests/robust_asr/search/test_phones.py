"""Oracle: the words of the best alignment, by enumeration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.search.phones import PhoneBeamSearch
from robust_asr.text import CharacterTokenizer
from robust_asr.types import Emissions, Transcript
from tests.robust_asr.lfmmi.enumeration import random_log_probs, sequences

WORDS = ["A", "AB", "BA", "SEE"]


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    file = tmp_path / "lexicon.txt"
    file.write_text("A AH\nA(2) EY\nAB AH B\nBA B AH\nSEE S IY\n")
    return Lexicon(str(file), stress=False)


def _emissions(lexicon: Lexicon, frames: list[str], *, certainty: float = 0.98) -> Emissions:
    probabilities = torch.full((1, len(frames), lexicon.size), (1 - certainty) / (lexicon.size - 1))
    for frame, name in enumerate(frames):
        probabilities[0, frame, lexicon.labels.index(name) if name != "-" else 0] = certainty
    return Emissions(probabilities.log(), torch.tensor([len(frames)]))


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("S IY", "SEE"),
        ("S S S IY IY IY", "SEE"),
        ("- S - - IY IY - -", "SEE"),
        ("SIL SIL S IY SIL AH B B SIL", "SEE AB"),
        ("EY EY EY - S IY", "A SEE"),
        ("EY S IY", "A SEE"),
        ("EY EY S IY", "A SEE"),
        ("EY EY EY S IY", "A SEE"),
        ("EY EY EY EY EY EY S IY", "A SEE"),
        ("EY - EY S IY", "A A SEE"),
        ("EY EY - EY S IY", "A A SEE"),
        ("EY EY - EY EY EY S IY", "A A SEE"),
        ("AH B B S S IY IY AH AH AH B EY", "AB SEE AB A"),
        ("B AH - EY S IY", "BA A SEE"),
        ("B AH AH EY EY S IY", "BA A SEE"),
        ("B AH - AH S IY", "BA A SEE"),
        ("B AH AH AH S IY", "BA SEE"),
        # The same phones as A BA.
        ("AH AH - B AH", "AB A"),
        ("EY - EY EY S IY", "A A SEE"),
        ("EY", "A"),
        ("EY EY", "A"),
        ("EY EY EY EY", "A"),
        ("EY EY - EY", "A A"),
        ("EY SIL EY EY", "A A"),
        ("AH B B - B AH", "AB BA"),
        ("SIL", ""),
        ("- -", ""),
    ],
)
def test_words_are_found_however_long_a_phone_lasts(lexicon: Lexicon, frames: str, text: str):
    decoder = PhoneBeamSearch(lexicon=WORDS)
    (transcript,) = decoder(_emissions(lexicon, frames.split()), lexicon, frame_shift=0.04)
    assert transcript.text == text
    assert len(transcript.words) == len(transcript.text.split())


def test_words_have_their_times(lexicon: Lexicon):
    frames = "SIL SIL S IY IY SIL AH B B SIL".split()
    (transcript,) = PhoneBeamSearch(lexicon=WORDS)(_emissions(lexicon, frames), lexicon, frame_shift=0.04)
    times = [(round(word.start / 0.04), round(word.end / 0.04)) for word in transcript.words]
    assert times == [(2, 5), (6, 9)]
    assert all(word.confidence == pytest.approx(0.98, abs=1e-3) for word in transcript.words)


def _alignments(phones: tuple[int, ...], num_frames: int, before: int = -1) -> Iterator[tuple[int, ...]]:
    """Labellings of the frames that spell the phones."""
    if not phones:
        yield (0,) * num_frames
        return
    for blanks in range(int(before == phones[0]), num_frames):
        for run in range(1, num_frames - blanks + 1):
            for rest in _alignments(phones[1:], num_frames - blanks - run, phones[0]):
                yield (0,) * blanks + (phones[0],) * run + rest


def _best(log_probs: Tensor, lexicon: Lexicon, worth: Callable[[str], float] = lambda text: 0.0) -> set[str]:
    """The texts of up to three words that have the best alignment, by looking at every alignment."""
    texts = {}
    for text in (" ".join(words) for number in range(4) for words in product(WORDS, repeat=number)):
        for phones in sequences(lexicon.sentence(text)):
            for labels in _alignments(phones, len(log_probs)):
                score = sum(float(log_probs[frame, label]) for frame, label in enumerate(labels))
                texts[text] = max(texts.get(text, -1e9), score + worth(text))
    return {text for text, score in texts.items() if score > max(texts.values()) - 1e-9}


def _of_words(lexicon: Lexicon, seed: int) -> Tensor:
    """Four frames of the phones of WORDS. Shape: (1, F, V)."""
    log_probs = random_log_probs(1, 4, lexicon.size, seed=seed, scale=4.0)
    heard = ("-", "AH", "B", "EY", "IY", "S", "SIL")
    log_probs[..., [label for label in range(1, lexicon.size) if lexicon.labels[label] not in heard]] = -40.0
    return log_probs


@pytest.mark.parametrize("seed", range(30))
def test_a_wide_beam_finds_the_best_alignment(lexicon: Lexicon, seed: int):
    log_probs = _of_words(lexicon, seed)
    decoder = PhoneBeamSearch(lexicon=WORDS, beam_size=500, beam_threshold=200.0)
    (transcript,) = decoder(Emissions(log_probs, torch.tensor([4])), lexicon, frame_shift=0.04)
    assert transcript.text in _best(log_probs[0], lexicon)


@pytest.mark.parametrize("seed", range(10))
def test_a_wide_beam_finds_what_is_best_with_an_ngram(lexicon: Lexicon, seed: int, tmp_path: Path):
    path = tmp_path / "words.arpa"
    path.write_text(_arpa("A", "BA"))
    listed = {("<s>", "A"): -0.01, ("A", "BA"): -0.01}

    def worth(text: str) -> float:
        words = text.split()
        return 1.5 * sum(listed.get(pair, -1.0) for pair in pairwise(["<s>", *words, "</s>"])) + 0.5 * len(words)

    log_probs = _of_words(lexicon, seed)
    decoder = PhoneBeamSearch(
        lexicon=WORDS, ngram=str(path), ngram_weight=1.5, word_score=0.5, beam_size=500, beam_threshold=200.0
    )
    (transcript,) = decoder(Emissions(log_probs, torch.tensor([4])), lexicon, frame_shift=0.04)
    assert transcript.text in _best(log_probs[0], lexicon, worth)


def test_equals_are_decided_alike(lexicon: Lexicon):
    def found(num: int) -> list[Transcript]:
        log_probs = torch.full((num, 9, lexicon.size), 1 / lexicon.size).log()
        return PhoneBeamSearch(lexicon=WORDS, word_score=1.0)(
            Emissions(log_probs, torch.tensor([9] * num)), lexicon, frame_shift=0.04
        )

    assert found(1)[0].text
    for num in range(2, 8):
        assert found(num) == found(1) * num


@pytest.mark.parametrize("beam_size", [1, 2, 50])
def test_each_utterance_alone(lexicon: Lexicon, beam_size: int):
    log_probs = random_log_probs(4, 20, lexicon.size).float()
    frame_lengths = torch.tensor([20, 7, 1, 0])
    for row, length in enumerate(frame_lengths):
        log_probs[row, length:] = torch.nan
    decoder = PhoneBeamSearch(lexicon=WORDS, beam_size=beam_size)
    together = decoder(Emissions(log_probs, frame_lengths), lexicon, frame_shift=0.04)
    assert together[-1] == Transcript("") and together[0].text
    for row, length in enumerate(frame_lengths.tolist()):
        alone = Emissions(log_probs[row : row + 1, :length], frame_lengths[row : row + 1])
        assert decoder(alone, lexicon, frame_shift=0.04) == [together[row]]


@pytest.mark.parametrize(
    ("texts", "text"), [(["SEA", "SEE"], "SEA SEA"), (["SEE", "SEA"], "SEA SEA"), (["SEE A", "SEE", "SEA"], "SEE SEE")]
)
def test_of_words_that_sound_alike_the_most_frequent_is_written(texts: list[str], text: str, tmp_path: Path):
    file = tmp_path / "lexicon.txt"
    file.write_text("A AH\nSEA S IY\nSEE S IY\n")
    lexicon = Lexicon(str(file), stress=False)
    # Each decoder has a trie at other addresses.
    found = {
        PhoneBeamSearch(lexicon=texts)(_emissions(lexicon, "S IY SIL S IY".split()), lexicon, frame_shift=0.04)[0].text
        for _ in range(20)
    }
    assert found == {text}


def test_an_ngram_decides_between_words_that_sound_alike(lexicon: Lexicon, tmp_path: Path):
    emissions = _emissions(lexicon, "AH - B - AH".split())
    found = []
    for first, second in (("A", "BA"), ("AB", "A")):
        arpa = tmp_path / f"{first}.arpa"
        arpa.write_text(_arpa(first, second))
        decoder = PhoneBeamSearch(lexicon=WORDS, ngram=str(arpa))
        found.append(decoder(emissions, lexicon, frame_shift=0.04)[0].text)
    assert found == ["A BA", "AB A"]


def _arpa(first: str, second: str) -> str:
    unigrams = "".join(f"-1\t{word}\t0\n" for word in ("</s>", "<unk>", *WORDS))
    return (
        f"\\data\\\nngram 1=7\nngram 2=2\n\n\\1-grams:\n-99\t<s>\t0\n{unigrams}\n\\2-grams:\n"
        f"-0.01\t<s> {first}\n-0.01\t{first} {second}\n\n\\end\\\n"
    )


def test_words_outside_the_lexicon_can_be_searched_for(lexicon: Lexicon):
    decoder = PhoneBeamSearch(lexicon=["BEE"])
    frames = [lexicon.labels[phone] for phone in lexicon.encode("BEE")]
    assert decoder(_emissions(lexicon, frames), lexicon, frame_shift=0.04)[0].text == "BEE"


def test_what_it_cannot_do_is_named(lexicon: Lexicon):
    with pytest.raises(ValueError, match="CharacterTokenizer"):
        PhoneBeamSearch(lexicon=WORDS)(_emissions(lexicon, ["S"]), CharacterTokenizer(), frame_shift=0.04)
    with pytest.raises(ValueError, match="no word"):
        PhoneBeamSearch(lexicon=[])(_emissions(lexicon, ["S"]), lexicon, frame_shift=0.04)
    with pytest.raises(FileNotFoundError):
        PhoneBeamSearch(lexicon="nowhere.txt")


def test_the_trie_is_no_part_of_a_copy(lexicon: Lexicon):
    decoder = PhoneBeamSearch(lexicon=WORDS)
    emissions = _emissions(lexicon, ["S", "IY"])
    assert copy.deepcopy(decoder)(emissions, lexicon, frame_shift=0.04) == decoder(emissions, lexicon, frame_shift=0.04)
