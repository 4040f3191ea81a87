"""Plots: what is drawn is what was measured, read back from the drawing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robust_asr.report.distributions import LIMIT, QUANTILES, Spread, distribution_plot, spreads
from robust_asr.report.grid import Grid
from robust_asr.report.lines import Estimate, Line, line_plot, lines_of
from robust_asr.report.series import NUM_COLOURS, colour, dash, legend, marker
from robust_asr.report.strips import bar, forest, forest_scale, stacked
from robust_asr.results.families import Family, Point

PGD = Family("PGD", "Linf", "amplitude", "exact", tuple(Point(f"{e:g}", e, e) for e in (1e-4, 1e-3, 1e-2)))
SNR = Family("PGD", "SNR", "dB", "exact", tuple(Point(str(d), float(d), d) for d in (30, 20, 10)))
NOISE = Family("noise", "", "std", "", tuple(Point(str(s), s, s) for s in (0.01, 0.02)))


def line(strengths: Sequence[float | None], values: Sequence[float], *, index: int = 0, system: str = "a") -> Line:
    pairs = zip(strengths, values, strict=True)
    return Line(system, index, tuple(Estimate(s, v, v - 2, v + 2, 130, False) for s, v in pairs))


def elements(svg: str, kind: str) -> list[ElementTree.Element]:
    """Elements by their first class, of an SVG that has to be well-formed XML."""
    return [each for each in ElementTree.fromstring(svg).iter() if each.get("class", "").split()[:1] == [kind]]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def labels(svg: str) -> dict[str, float]:
    """Text of the horizontal axis -> its place."""
    return {
        each.text: float(each.get("x")) for each in elements(svg, "tick-label") if each.get("text-anchor") == "middle"
    }


def vertical(svg: str) -> list[tuple[float, float]]:
    """Value -> place of the vertical axis."""
    ticks = [each for each in elements(svg, "tick-label") if each.get("text-anchor") == "end"]
    return [(float(each.text), float(each.get("y")) - 4) for each in ticks]


@pytest.mark.parametrize("family", [PGD, SNR, NOISE])
def test_a_line_goes_through_its_values(family):
    strengths = [None, *(point.strength for point in family.points)]
    values = [10.0, 30.0, 60.0, 120.0][: len(strengths)]
    svg = line_plot(family, [line(strengths, values)], label="L")
    (path,) = elements(svg, "line")
    (low, low_y), *_, (high, high_y) = vertical(svg)
    read = [low + (y - low_y) * (high - low) / (high_y - low_y) for _, y in points(path.get("d"))]
    assert read == pytest.approx(values, abs=0.2)
    marks = [float(re.search(r"translate\(([\d.]+)", each.get("transform"))[1]) for each in elements(svg, "marker")]
    assert marks == [x for x, _ in points(path.get("d"))] == sorted(marks)
    # Stronger is to the right, and the clean audio is at the left end.
    assert labels(svg)["clean"] == marks[0]


def test_decades_are_even_and_the_clean_audio_stands_apart():
    svg = line_plot(PGD, [line([None, 1e-4, 1e-3, 1e-2], [5, 10, 20, 40])], label="L")
    clean, *marks = sorted(labels(svg).values())
    assert np.diff(marks) == pytest.approx([marks[1] - marks[0]] * 2, abs=0.11) and marks[0] - clean > 30
    assert len(elements(svg, "cut")) == 1


def test_a_linear_axis_begins_with_the_clean_audio_at_zero():
    svg = line_plot(NOISE, [line([None, 0.01, 0.02], [5, 10, 20])], label="L")
    clean, one, two = (labels(svg)[name] for name in ("clean", "0.01", "0.02"))
    assert one - clean == pytest.approx(two - one, abs=0.11) and not elements(svg, "cut")


def test_snr_falls_to_the_right():
    svg = line_plot(SNR, [line([30, 20, 10], [5, 10, 20])], label="L")
    assert list(labels(svg)) == ["30", "20", "10"] and "clean" not in labels(svg)


def test_a_band_is_the_interval():
    svg = line_plot(NOISE, [line([None, 0.01, 0.02], [10, 20, 30])], label="L")
    (band,), (path,) = elements(svg, "band"), elements(svg, "line")
    corners, middle = points(band.get("d")), points(path.get("d"))
    assert len(corners) == 6
    for (x, y), (above_x, above_y), (below_x, below_y) in zip(middle, corners[:3], corners[:2:-1], strict=True):
        assert above_x == below_x == x and above_y < y < below_y and y - above_y == pytest.approx(below_y - y, abs=0.11)


def test_a_plot_says_its_data_in_words():
    lines = [line([None, 0.01, 0.02], [10, 20, 30]), line([0.01], [7.25], index=1, system='b"<')]
    root = ElementTree.fromstring(line_plot(NOISE, lines, label="WER & noise"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == (
        "WER & noise. a: clean 10.0 [8.0, 12.0], 0.01 20.0 [18.0, 22.0], 0.02 30.0 [28.0, 32.0]; "
        'b"<: 0.01 7.2 [5.2, 9.2]'
    )


def test_lines_are_those_of_the_rows(example: Grid):
    found = lines_of(example, example.families[1], "test-clean")
    assert [each.system for each in found] == example.systems
    cell = example.cell("RS 0.01", "pgd7-0.001", "test-clean")
    assert [e.strength for e in found[1].estimates] == [None, 1e-4, 1e-3, 1e-2]
    assert found[1].estimates[2].value == cell.lines["GT_WER"]["value"]
    # The target has no clean audio.
    targets = lines_of(example, example.families[1], "test-clean", metric="TGT_WER")
    assert [e.strength for e in targets[0].estimates] == [1e-4, 1e-3, 1e-2]
    assert lines_of(example, example.families[0], "test-clean", metric="TGT_WER") == []


def test_colour_marker_and_dash_tell_systems_apart():
    looks = [(marker(index, 0, 0), dash(index)) for index in range(3 * NUM_COLOURS)]
    assert len(set(looks)) == len(looks)
    # Without any colour too.
    grey = [(re.sub(r" s\d", "", mark), stroke) for mark, stroke in looks]
    assert len(set(grey[: 2 * NUM_COLOURS])) == 2 * NUM_COLOURS
    assert colour(0) == colour(NUM_COLOURS) and "&lt;b" in legend(["<b"])


def test_quantiles_are_those_of_numpy():
    rates = np.random.default_rng(0).gamma(2, 20, 57)
    spread = Spread("a", 0, tuple(sorted(rates)), 0)
    for _, share in QUANTILES:
        assert spread.quantile(share) == pytest.approx(np.quantile(rates, share))
    assert Spread("a", 0, (7.0,), 0).quantile(0.95) == 7.0


def test_a_box_stands_on_its_quartiles():
    spread = Spread("a", 0, tuple(float(value) for value in range(101)), 0)
    svg = distribution_plot("pgd", [spread])
    (box,), (median,) = elements(svg, "box"), elements(svg, "median")
    left, width = float(box.get("x")), float(box.get("width"))
    scale = (348 - 12) / 100
    assert [(left - 12) / scale, (left + width - 12) / scale] == pytest.approx([25, 75], abs=0.1)
    assert (points(median.get("d").replace("M", "").replace("v", " "))[0][0] - 12) / scale == pytest.approx(50, abs=0.1)
    assert len(re.findall("h0", elements(svg, "dots")[0].get("d"))) == 101


def test_what_is_beyond_the_scale_is_counted_and_the_drawing_stays_small():
    spread = Spread("a", 0, tuple([50.0] * 99_990 + [LIMIT + 1] * 10), 0)
    svg = distribution_plot("pgd", [spread])
    assert "10 beyond 200 %" in svg and len(svg) < 20_000


def test_utterances_without_words_are_counted_apart(example: Grid):
    found = spreads(example, "test-clean", "clean")
    assert [(spread.system, len(spread.rates), spread.without_words) for spread in found] == [
        (system, 40, 0) for system in example.systems
    ]
    cell = example.cell("baseline", "clean", "test-clean")
    rows = tuple(row | {"words": 0} for row in cell.rows)
    silent = replace(example, cells=example.cells | {("baseline", "clean", "test-clean"): replace(cell, rows=rows)})
    assert [spread.system for spread in spreads(silent, "test-clean", "clean")] == example.systems[1:]


def test_a_forest_has_its_point_between_its_ends():
    svg = forest(1, -10, -15, -5, scale=(-20, 20))
    (whisker,), (mark,), (zero,) = elements(svg, "whisker"), elements(svg, "marker"), elements(svg, "rule")
    left, right = re.search(r"M([\d.]+) 10H([\d.]+)", whisker.get("d")).groups()
    centre = float(re.search(r"translate\(([\d.]+)", mark.get("transform"))[1])
    assert float(left) < centre < float(right) < float(re.search(r"M([\d.]+)", zero.get("d"))[1]) == 160
    assert re.findall(">([^<]+)</text>", forest_scale((-20, 20), [-20, 0, 20])) == ["−20", "0", "+20"]


def test_stacked_bars_add_up():
    svg = stacked({"substitutions": 20.0, "deletions": 10.0, "insertions": 70.0}, top=125)
    bars = [each for name in ("substituted", "deleted", "inserted") for each in elements(svg, name)]
    edges = [(float(each.get("x")), float(each.get("x")) + float(each.get("width"))) for each in bars]
    assert edges[0][0] == 0 and edges[2][1] == pytest.approx(320 * 100 / 125, abs=0.1)
    gaps = [after[0] - before[1] for before, after in pairwise(edges)]
    assert gaps == pytest.approx([0, 0], abs=0.11)


def test_a_bar_is_as_long_as_its_rate():
    (filled,), (between,) = (elements(bar(40, 30, 55, top=160), name) for name in ("filled", "range"))
    assert float(filled.get("width")) == 25
    assert [float(between.get(name)) for name in ("x", "width")] == pytest.approx([18.8, 15.6], abs=0.11)
