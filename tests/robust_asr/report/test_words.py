"""What a report says without a page: the verdict, Markdown and the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.markdown import markdown_text, plain
from robust_asr.report.page import page_text
from robust_asr.report.runs import read_runs
from robust_asr.report.terminal import terminal_text
from robust_asr.report.verdict import failures, not_run, progress, verdict
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example

CHOSEN = {name: CONDITIONS[name] for name in ("clean", "noise-0.02", "pgd7-0.01")}


def made(folder: Path, **more) -> Grid:
    return tabulate(read_runs([write_example(folder, **{"num_utterances": 3, "keep_audio": 0} | more)]))


def test_the_verdict_says_who_where_best_worst_and_gained(example: Grid):
    text = " ".join(verdict(example))
    value = {cell.system: f"{cell.wer['value']:.1f}" for cell in example.done() if cell.condition == "pgd7-0.01"}
    assert text.startswith(
        "3 systems on test-clean (40 utterances): clean audio, 2 conditions of noise and 4 attacks. Clean audio: baseline"
    )
    order = ("RS 0.01 + denoiser", "RS 0.01", "baseline")
    first, second, third = (f"{system} {value[system]} %" for system in order)
    assert f"Worst condition of each system: {first}, {second} and {third}, under PGD-7 targeted, L∞ 0.01." in text
    assert re.search(
        r"Fewer errors than baseline under noise or attack, by paired 95 % intervals: RS 0.01 in \d of 6, more in \d;",
        text,
    )
    assert "A gain that comes from emptier transcripts is no gain: RS 0.01 under PGD-7 targeted, L∞ 0.01" in text
    assert text.endswith("Checks: 2 passed, 1 failed and 1 not run.")
    assert failures(example) == ["1 of 4 checks failed: gradient reaches the waveform. Explain this before any number."]
    assert progress(example) == []


def test_one_system_is_compared_with_nobody(tmp_path):
    text = " ".join(verdict(made(tmp_path / "a", systems={"only": SYSTEMS["baseline"]}, conditions=CHOSEN)))
    assert "1 system on" in text and "Clean audio: only has a WER of " in text
    assert re.search(r"Worst condition of each system: only [\d.]+ %, under ", text) and "Fewer errors" not in text


def test_many_systems_are_a_range(tmp_path):
    systems = {f"s{index}": SYSTEMS["baseline"] for index in range(7)}
    text = " ".join(verdict(made(tmp_path / "a", systems=systems, conditions=CHOSEN)))
    assert re.search(r"Worst condition of each system: from s\d [\d.]+ % to s\d [\d.]+ %", text) and len(text) < 500


def test_what_was_not_run_is_named_and_worst_is_of_what_all_met(tmp_path):
    """Rows stop in the middle of the only utterance: the last system lacks the last condition."""
    found = made(tmp_path / "a", conditions=CHOSEN, num_utterances=1, rows=8 / 9)
    assert [(cell.condition, cell.system) for cell in not_run(found)] == [("pgd7-0.01", "RS 0.01 + denoiser")]
    text = " ".join(verdict(found))
    assert "Not run: RS 0.01 + denoiser under PGD-7 targeted, L∞ 0.01." in text
    assert "Worst condition of each system, of the 1 that all of them met:" in text
    assert progress(found) == [
        "Run a holds 8 of 9 results (one for each utterance, system and condition): it is still under way, or was stopped."
    ]


def test_a_masked_gradient_is_a_warning_everywhere(tmp_path):
    folder = write_example(tmp_path / "a", conditions=CHOSEN, num_utterances=3, keep_audio=0)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for entry in rows:
        masked = (entry["system"], entry["condition"]) == ("RS 0.01", "pgd7-0.01") and entry["id"].endswith("2")
        entry["status"] = "masked gradient" if masked else "attacked"
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    grid = tabulate(read_runs([folder]))
    assert [cell.masked for cell in grid.done()].count(1) == 1
    place = "RS 0.01 under PGD-7 targeted, L∞ 0.01."
    sentence = f"The attack met a masked gradient, so the number says nothing about robustness: {place}"
    assert sentence in verdict(grid) and sentence in page_text(grid, "T", max_bytes=10**7)
    warning = "warning: gradient masked on 1"
    assert warning in terminal_text(grid) and warning in markdown_text(grid, "T")
    table = page_text(grid, "T", max_bytes=10**7).split('id="wer"')[1].split("</section>")[0]
    assert table.count(">masked gradient<") == table.count(warning) == 1


def test_a_shared_attack_names_who_paid_for_it(tmp_path):
    folder = write_example(tmp_path / "a", conditions=CHOSEN, num_utterances=2, keep_audio=0)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    rows = [entry | {"paid_by": "<baseline>" if entry["system"] == "RS 0.01" else None} for entry in rows]
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    costs = page_text(tabulate(read_runs([folder])), "T", max_bytes=10**7).split('id="cost"')[1].split("</section>")[0]
    assert costs.count("the attack was paid by &lt;baseline&gt;") == len(CHOSEN)


def test_an_ensemble_names_the_members_that_won(tmp_path):
    folder = write_example(tmp_path / "a", conditions=CHOSEN, num_utterances=2, keep_audio=0)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    rows = [entry | {"member": "<margin>"} for entry in rows]
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    page = page_text(tabulate(read_runs([folder])), "T", max_bytes=10**7)
    costs = page.split('id="cost"')[1].split("</section>")[0]
    assert "won by &lt;margin&gt;: 2" in costs and "<margin>" not in page


def test_nothing_yet_is_said(tmp_path):
    assert verdict(made(tmp_path / "a", rows=0.0))[-1] == "No result is there yet."


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "`x`",
        "<b>",
        "*x* _y_",
        "[a](http://x.y)",
        "www.x.y",
        "&amp;",
        "# h",
        "- x",
        "\\|",
        "a\nb",
        "~~x~~",
        "$x$",
    ],
)
def test_no_markup_is_left_in_markdown(text):
    shown = plain(text)
    assert re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", shown) == text.replace("\n", "\ufffd")
    # Whatever opens markup has a backslash before it, and that one is no escaped backslash.
    assert not re.search(r"(?<!\\)(\\\\)*[`*_<>|\[\]#~&$]", shown) and "p://" not in shown and "www.x" not in shown


def test_markdown_tables_have_as_many_cells_in_every_row(tmp_path):
    systems = {"a|b": SYSTEMS["baseline"], "<i>`c": SYSTEMS["RS 0.01"]}
    content = markdown_text(made(tmp_path / "a", systems=systems, conditions=CHOSEN), "T | <b>")
    tables = [block.split("\n") for block in content.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3 and content.startswith("# T \\| \\<b\\>\n")
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table if row}) == 1
        assert re.fullmatch(r"\|( ---:? \|)+", table[1])


def test_markdown_holds_the_numbers(example: Grid):
    content = markdown_text(example, "T")
    for cell in example.done():
        assert f"{cell.wer['value']:.1f} \\[{cell.wer['ci_low']:.1f}, {cell.wer['ci_high']:.1f}\\], n 40" in content
    assert "gain with emptier transcripts" in content and "\N{MINUS SIGN}" not in content.split("## ")[1]


def test_the_terminal_shows_aligned_columns_and_no_control_character(tmp_path):
    systems = {"a\x1b[31m\r": SYSTEMS["baseline"], "b\u202e": SYSTEMS["RS 0.01"]}
    text = terminal_text(made(tmp_path / "a", systems=systems, conditions=CHOSEN))
    assert all(character.isprintable() or character == "\n" for character in text) and "\u202e" not in text
    table = text.split("\n\n")[0].split("\n")
    assert len(table) == 1 + 6 and len({line.index("]") for line in table[1:]}) == 1
