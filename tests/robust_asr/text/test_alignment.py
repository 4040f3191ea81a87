"""Word alignment: both texts come back out of it, and its edits are a Levenshtein distance."""

from __future__ import annotations

import math
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from robust_asr.text import normalize
from robust_asr.text.alignment import align, align_html, align_text

WORDS = st.lists(st.sampled_from(["A", "B", "C", "D", "EF"]), max_size=8).map(" ".join)
WIDE = st.text(st.characters(codec="utf-8"), max_size=30)


def levenshtein(reference: list[str], hypothesis: list[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, spoken in enumerate(reference, start=1):
        previous, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (spoken != heard))
    return row[-1]


class _Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@given(WORDS, WORDS)
def test_the_edits_are_a_levenshtein_distance(reference, hypothesis):
    assert align(reference, hypothesis).edits == levenshtein(reference.split(), hypothesis.split())


@given(WIDE, WIDE)
def test_both_texts_come_back_out(reference, hypothesis):
    alignment = align(reference, hypothesis)
    assert " ".join(word.reference for word in alignment if word.reference) == normalize(reference)
    assert " ".join(word.hypothesis for word in alignment if word.hypothesis) == normalize(hypothesis)
    for word in alignment:
        assert (word.operation == "insert") == (not word.reference)
        assert (word.operation == "delete") == (not word.hypothesis)
        assert (word.operation == "equal") == (word.reference == word.hypothesis)


def test_counts_and_rate_of_an_example_done_by_hand():
    alignment = align("the cat sat down", "the a cat sit")
    assert [alignment.count(kind) for kind in ("equal", "substitute", "delete", "insert")] == [2, 1, 1, 1]
    assert alignment.word_error_rate == 3 / 4
    assert math.isnan(align("", "noise").word_error_rate) and align("", "noise").edits == 1


def test_text_columns_stand_over_each_other():
    assert align_text("the cat sat down", "the a cat sit") == "\n".join(
        ["REF: THE * CAT SAT DOWN", "HYP: THE A CAT SIT ****", "         I     S   D"]
    )
    assert align_text("", "") == ""


@given(WORDS, WORDS, st.integers(12, 40))
def test_text_wraps_into_blocks_that_lose_no_word(reference, hypothesis, width):
    blocks = [block.split("\n") for block in align_text(reference, hypothesis, width=width).split("\n\n") if block]
    spoken = [word for block in blocks for word in block[0].split()[1:] if "*" not in word]
    assert spoken == reference.split()
    assert all(len(line) <= width for block in blocks for line in block)


@given(WIDE, WIDE)
def test_html_holds_no_tag_but_its_own(reference, hypothesis):
    page = _Text(align_html(f"<script>x</script> {reference}", f'"><img onerror=1> & {hypothesis}'))
    assert page.tags <= {"div", "span", "del", "ins", "sup"}
    assert "<SCRIPT>X</SCRIPT>" in page.text


def test_html_shows_no_character_that_turns_the_text_around():
    assert "\u202e" not in align_html("A\u202eB", "A\x00B") and "\x00" not in align_html("A\u202eB", "A\x00B")
