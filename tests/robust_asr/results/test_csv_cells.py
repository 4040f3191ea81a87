"""Cells of a CSV file: numbers bit for bit, and no formula."""

from __future__ import annotations

import csv
import io
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robust_asr.results.csv_cells import decode, encode

PRINTABLE = st.text().map(lambda text: "".join(character for character in text if character.isprintable()))


@given(st.floats(allow_nan=False))
@example(5e-324)
@example(-0.0)
def test_a_number_reads_back_bit_for_bit(value):
    back = decode(encode(value))
    assert isinstance(back, float) and back == value and math.copysign(1, back) == math.copysign(1, value)


@given(st.integers())
def test_a_whole_number_stays_one(value):
    back = decode(encode(value))
    assert back == value and isinstance(back, int)


def test_truth_is_one_and_nan_is_nan():
    assert (encode(True), encode(False)) == ("1", "0") and math.isnan(decode(encode(math.nan)))


@given(PRINTABLE)
@example("=1+1")
@example("'quoted")
@example("''")
def test_a_text_comes_back_or_is_a_number(text):
    back = decode(encode(text))
    assert back == text or isinstance(back, int | float)


@given(st.text())
@example("=HYPERLINK('x')")
@example("+1")
@example("-1")
@example("@SUM(A1)")
@example("\t=1")
@example("\r\n=1")
@example("\uff1d1")
def test_no_spreadsheet_computes_a_text(text):
    cell = encode(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert cell.isprintable()
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow([cell, "next"])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == [cell, "next"] and file.getvalue().count("\n") == 1


@pytest.mark.parametrize("text", ["1_000", "١٢", " 7", "7 ", "0x10"])
def test_only_what_encode_writes_is_a_number(text):
    assert decode(text) == text
