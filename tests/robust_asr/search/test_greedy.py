from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.search.greedy import GreedySearch, align
from robust_asr.text import CharacterTokenizer, Tokenizer, normalize
from robust_asr.types import Emissions, Transcript, Word

TOKENIZER = CharacterTokenizer("AB ")


def emissions_of(labels: list[list[int]], *, probability: float = 0.9, size: int = 4) -> Emissions:
    """Frames that give their label ``probability`` and share the rest."""
    longest = max(map(len, labels), default=0)
    probabilities = torch.full((len(labels), longest, size), (1 - probability) / (size - 1))
    for row, frames in enumerate(labels):
        for frame, label in enumerate(frames):
            probabilities[row, frame, label] = probability
    return Emissions(probabilities.log(), torch.tensor([len(frames) for frames in labels]))


def spelled(labels: list[int], tokenizer: Tokenizer) -> str:
    return normalize(tokenizer.decode([label for label, _ in itertools.groupby(labels)]))


def test_words_by_hand() -> None:
    #       blank A A blank A space space B B blank
    labels = [0, 1, 1, 0, 1, 3, 3, 2, 2, 0]
    emissions = emissions_of([labels], probability=0.81)
    emissions.log_probs[0, 1] = torch.tensor([0.1, 0.64, 0.13, 0.13]).log()
    (transcript,) = GreedySearch()(emissions, TOKENIZER, frame_shift=0.02)
    assert transcript.text == "AA B"
    first, second = transcript.words
    assert (first.text, second.text) == ("AA", "B")
    assert (first.start, first.end) == pytest.approx((0.02, 0.10))
    assert (second.start, second.end) == pytest.approx((0.14, 0.18))
    assert first.confidence == pytest.approx((0.64 * 0.81 * 0.81) ** (1 / 3))
    assert second.confidence == pytest.approx(0.81)


def test_frames_past_the_length_are_not_heard() -> None:
    emissions = emissions_of([[1, 0, 2, 2]])
    shorter = Emissions(emissions.log_probs, torch.tensor([2]))
    assert GreedySearch()(shorter, TOKENIZER, frame_shift=1.0) == [
        Transcript("A", (Word("A", 0.0, 1.0, pytest.approx(0.9)),))
    ]


@pytest.mark.parametrize("labels", [[[]], [[0, 0]], [[3, 3, 0, 3]], [[0], []]])
def test_nothing_heard(labels: list[list[int]]) -> None:
    assert GreedySearch()(emissions_of(labels), TOKENIZER, frame_shift=1.0) == [Transcript("")] * len(labels)


LABELS = st.lists(st.integers(0, 3), max_size=12)


@given(st.lists(LABELS, min_size=1, max_size=4))
def test_text_is_the_collapsed_labels(rows: list[list[int]]) -> None:
    transcripts = GreedySearch()(emissions_of(rows), TOKENIZER, frame_shift=0.5)
    for labels, transcript in zip(rows, transcripts, strict=True):
        assert transcript.text == spelled(labels, TOKENIZER)
        assert transcript.text == " ".join(word.text for word in transcript.words)
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times) and all(0 <= time <= len(labels) * 0.5 for time in times)
        assert all(
            word.start < word.end and math.isclose(word.confidence, 0.9, rel_tol=1e-5) for word in transcript.words
        )


class Pieces(Tokenizer):
    """Word pieces as SentencePiece writes them: a space belongs to the piece that begins a word."""

    texts = ("", " THE", " CAT", "S", " OF ROME")
    size = len(texts)

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.texts[token] for token in tokens).strip()

    def pieces(self, tokens: list[int]) -> list[str]:
        return [self.texts[token] for token in tokens]


def test_pieces_make_words() -> None:
    labels = torch.tensor([[1, 0, 2, 3, 4, 4]])
    (transcript,) = align(labels, emissions_of(labels.tolist(), size=5), Pieces(), frame_shift=1.0)
    assert transcript.text == "THE CATS OF ROME"
    assert [(word.start, word.end) for word in transcript.words] == [(0, 1), (2, 4), (4, 6), (4, 6)]
