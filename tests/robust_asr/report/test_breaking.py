"""Breaking points in the report: the staircase says what the rows say, and no table of error rates holds them."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest

from robust_asr.report import report
from robust_asr.report.breaking import HEAD, breaking_cells, breaking_section, breaking_sentences
from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.markdown import markdown_text
from robust_asr.report.numbers import MINUS
from robust_asr.report.page import page_text
from robust_asr.report.runs import read_runs
from robust_asr.report.staircase import Staircase, staircase_plot
from robust_asr.report.terminal import terminal_text
from robust_asr.results.breaking import BreakingPoints, Span
from tests.robust_asr.report.breaking_example import BREAKING, write_breaking
from tests.robust_asr.report.example import SYSTEMS
from tests.robust_asr.report.test_plots import elements, labels, vertical


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_breaking(tmp_path_factory.mktemp("breaking") / "run", num_utterances=24)


@pytest.fixture(scope="module")
def grid(run_dir: Path) -> Grid:
    return tabulate(read_runs([run_dir]))


def corners(path: str) -> list[tuple[float, float]]:
    """The corners of a path of horizontal and vertical lines."""
    x, y, found = 0.0, 0.0, []
    for kind, numbers in re.findall(r"([MHV])([-\d. ]+)", path):
        values = list(map(float, numbers.split()))
        x, y = (values[0], values[-1]) if kind == "M" else (values[0], y) if kind == "H" else (x, values[0])
        found.append((x, y))
    return found


def test_a_staircase_rises_where_utterances_break() -> None:
    levels = (Span(-80, -80), Span(-60, -60), Span(-40, -40), Span(-40, math.inf))
    svg = staircase_plot([Staircase("a", 0, levels)], label="L")
    (path,), (mark,) = elements(svg, "line"), elements(svg, "marker")
    (_, zero), *_, (_, hundred) = vertical(svg)
    places, steps = labels(svg), corners(path.get("d"))
    heights = [100 * (y - zero) / (hundred - zero) for _, y in steps]
    assert heights == pytest.approx([0, 0, 25, 25, 50, 50, 75, 75], abs=0.1)
    decades = [places[f"1e{MINUS}4"], places["0.001"], places["0.01"]]
    assert [x for x, _ in steps[1:6:2]] == pytest.approx(decades, abs=0.1)
    # The marker stands where half of them are broken.
    x, y = map(float, re.findall(r"[-\d.]+", mark.get("transform")))
    assert (x, y) == pytest.approx((places["0.001"], (zero + hundred) / 2), abs=0.1)
    assert f"a: 25 % at 1e{MINUS}4, 50 % at 0.001, 75 % at 0.01" in svg


def test_under_an_snr_the_axis_falls() -> None:
    points = BreakingPoints((Span(30, 30), Span(10, 10)), (Span(-60, -60), Span(-40, -40)), 0, 0, 0, 0)
    svg = staircase_plot([Staircase.of("a", 0, points, falls=True)], label="L")
    (path,) = elements(svg, "line")
    places, steps = labels(svg), corners(path.get("d"))
    assert places["30"] < places["20"] < places["10"]
    assert [steps[1][0], steps[3][0]] == pytest.approx([places["30"], places["10"]], abs=0.1)
    assert "a: 50 % at 30.0, 100 % at 10.0" in svg


def test_the_section_has_the_numbers_of_the_summary(grid: Grid) -> None:
    text = breaking_section(grid)
    assert BREAKING["attack"] in text and "1e-05 to 0.01 amplitude" in text
    for cell in grid.breaking.values():
        row = breaking_cells(cell)
        assert len(row) == len(HEAD) - 1
        value = cell.lines["breaking_SNR"]["value"]
        assert row[0] == (f"{value:.1f}" if isinstance(value, float) else f"{value[:2]}{float(value[2:]):.1f}")
    plot = re.search(r'<svg class="plot".*?</svg>', text).group()
    assert len(elements(plot, "line")) == len(SYSTEMS)


def test_everything_else_leaves_breaking_points_out(grid: Grid, tmp_path: Path, run_dir: Path) -> None:
    assert "breaking" not in grid.conditions
    assert {cell.condition for cell in grid.cells.values()} == {"clean", "pgd7-0.001"}
    page = page_text(grid, "T", max_bytes=5_000_000)
    assert '<a href="#breaking">' in page and "1 attack and 1 breaking point" in page
    (sentence,) = breaking_sentences(grid)
    assert sentence.startswith("Median breaking point, breaking") and "baseline" in sentence.rpartition(",")[2]
    assert "breaking points, medians" in markdown_text(grid, "T") and "breaking points" in terminal_text(grid)
    report([run_dir], tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        found = {line["metric"] for line in csv.DictReader(file) if line["condition"] == "breaking"}
    assert {"breaking_SNR", "not_broken"} <= found and "GT_WER" not in found


def test_a_run_of_breaking_points_alone_has_a_page(tmp_path: Path) -> None:
    folder = write_breaking(tmp_path / "run", num_utterances=3)
    path = folder / "results.jsonl"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if '"breaking_' in line))
    grid = tabulate(read_runs([folder]))
    assert "Median breaking point" in page_text(grid, "T", max_bytes=0) and "Median" in terminal_text(grid)
