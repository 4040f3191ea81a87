"""Oracle: the counts of every way to say the texts."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.lfmmi.phone_lm import estimate_bigram, expected_counts

TEXTS = ["A THE", "the a a", "", "B"]


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    file = tmp_path / "lexicon.txt"
    file.write_text("A AH\nA(2) EY\nTHE DH AH\nTHE(2) DH IY\nTHE(3) DH\nB B IY\n")
    return Lexicon(str(file), stress=False)


def test_counts_are_expectations(lexicon: Lexicon):
    expected = torch.zeros(lexicon.size, lexicon.size, dtype=torch.float64)
    for text in TEXTS:
        ways = []
        sentence = lexicon.sentence(text)
        for variants in product(*sentence):
            for quiet in product(((), (lexicon.silence,)), repeat=len(sentence) + 1):
                parts = [part for pair in zip(quiet, (*variants, ()), strict=True) for part in pair]
                ways.append((0, *sum(parts, ()), 0))
        for way in ways:
            for pair in pairwise(way):
                expected[pair] += 1 / len(ways)
    torch.testing.assert_close(expected_counts(TEXTS, lexicon), expected)


def test_rows_are_distributions_without_zeros(lexicon: Lexicon):
    bigram = estimate_bigram(TEXTS, lexicon).double().exp()
    torch.testing.assert_close(bigram.sum(1), torch.ones(lexicon.size, dtype=torch.float64))
    assert bool((bigram > 0).all())
    phone = lexicon.labels.index
    assert bigram[phone("DH"), phone("AH")] > 5 * bigram[phone("DH"), phone("ZH")]
    unseen = bigram[phone("ZH")]
    assert bool((unseen <= unseen[[0, lexicon.silence, phone("DH")]].max()).all()), "as after anything"


def test_a_single_row_by_hand(lexicon: Lexicon):
    # "B" alone: start -> B, SIL; B -> IY; IY -> SIL, end; SIL -> B, end.
    bigram = estimate_bigram(["B"], lexicon, discount=0.25).double().exp()
    b, iy, size = lexicon.labels.index("B"), lexicon.labels.index("IY"), lexicon.size
    followed = {b: 2, iy: 1, lexicon.silence: 2, 0: 2}
    for label in range(size):
        backoff = (followed.get(label, 0) + 1) / (7 + size)
        start = {b: 0.25, lexicon.silence: 0.25}.get(label, 0.0) + 0.5 * backoff
        assert float(bigram[0, label]) == pytest.approx(start, rel=1e-5)
        assert float(bigram[b, label]) == pytest.approx((0.75 if label == iy else 0.0) + 0.25 * backoff, rel=1e-5)


def test_what_cannot_be_estimated_is_refused(lexicon: Lexicon):
    with pytest.raises(ValueError, match="at least one text"):
        estimate_bigram([], lexicon)
    with pytest.raises(ValueError, match="discount"):
        estimate_bigram(TEXTS, lexicon, discount=1.0)
