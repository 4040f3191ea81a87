"""What the recipes' READMEs quote is what committed files hold: intervals, and verdicts by the one rule.

A dagger marks what no committed file can answer for; it goes when the file is there.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest

from robust_asr.results.claims import read_claims, table
from robust_asr.results.csv_cells import decode
from tests.command_line import ROOT

RECIPES = ROOT / "recipes"
READMES = sorted(path.relative_to(RECIPES) for path in RECIPES.rglob("README.md"))
CLAIMS = sorted(path.relative_to(RECIPES) for path in RECIPES.rglob("claims.csv"))
# 12.2 [9.9, 14.7], 12.25 % [9.97, 14.78], **42.0 dB** [40.9, 43.3], 17 points [6, 30].
QUOTED = re.compile(r"([+-]?\d+(?:\.\d+)?)(?: %| points| dB)?(?:\*\*)?\s+\[(-?\d+(?:\.\d+)?),\s(-?\d+(?:\.\d+)?)\](†?)")
VERDICT = re.compile(r"\*\*(?:holds|fails|undecidable)\*\*(?!†)")


@cache
def committed(folder: Path) -> frozenset[tuple[float, float, float]]:
    """Value and interval of every line of the CSV files of a folder and those below it."""
    found = set()
    for path in folder.rglob("*.csv"):
        for row in csv.DictReader(path.read_text().splitlines()):
            # A median that censored utterances leave open is a text such as "> 0.1".
            if row.get("ci_low") and not isinstance(decode(row["value"]), str):
                found.add((float(row["value"]), float(row["ci_low"]), float(row["ci_high"])))
    return frozenset(found)


def reads(number: float, quoted: str) -> bool:
    """Whether a number is the quoted one, rounded to as many digits."""
    return abs(number - float(quoted)) <= 0.5 * 10 ** -len(quoted.partition(".")[2]) + 1e-6


def is_committed(quoted: tuple[str, str, str], folder: Path) -> bool:
    """A difference may be quoted the other way round: 5 points fewer for -5."""
    return any(
        all(map(reads, numbers, quoted))
        for value, low, high in committed(folder)
        for numbers in ((value, low, high), (-value, -high, -low))
    )


@pytest.mark.parametrize("name", READMES, ids=str)
def test_every_interval_has_its_line_in_a_committed_file(name: Path) -> None:
    quotes = QUOTED.findall((RECIPES / name).read_text())
    assert quotes
    folder = (RECIPES / name).parent
    without = [quoted for *quoted, dagger in quotes if not dagger and not is_committed(tuple(quoted), folder)]
    assert not without, "no line of a CSV file beside the README holds these; correct them, or mark them with a dagger"


@pytest.mark.parametrize("name", READMES, ids=str)
def test_no_interval_that_a_committed_file_holds_is_marked_as_lost(name: Path) -> None:
    quotes = QUOTED.findall((RECIPES / name).read_text())
    folder = (RECIPES / name).parent
    assert not [quoted for *quoted, dagger in quotes if dagger and is_committed(tuple(quoted), folder)]


@pytest.mark.parametrize("name", CLAIMS, ids=str)
def test_the_verdicts_of_a_readme_are_what_the_rule_says(name: Path) -> None:
    verdicts = table(read_claims(RECIPES / name))
    folders = (RECIPES / name).parents[:2]
    readmes = [folder / "README.md" for folder in folders if (folder / "README.md").exists()]
    assert any(verdicts in path.read_text() for path in readmes), (
        f"no README beside recipes/{name} holds the table of `python -m robust_asr.results.claims recipes/{name}`"
    )


@pytest.mark.parametrize("name", READMES, ids=str)
def test_a_verdict_without_a_dagger_comes_from_a_table_of_the_rule(name: Path) -> None:
    text = (RECIPES / name).read_text()
    for claims in CLAIMS:
        text = text.replace(table(read_claims(RECIPES / claims)), "")
    # Where the rule is stated its three words are no verdicts.
    text = re.sub(r"it \*\*holds\*\* if .*?\n\n", "", text, flags=re.DOTALL)
    assert not VERDICT.findall(text)
