"""How the numbers were made: enough for a reviewer to make them again."""

from __future__ import annotations

import json
from typing import Any

from robust_asr.report.blocks import details, plain_table, scroll
from robust_asr.report.grid import Grid
from robust_asr.report.markup import escaped
from robust_asr.results.emptier import LEAST_RISE

_DEFINITIONS = (
    (
        "Word error rate",
        "Substitutions, deletions and insertions over all utterances, divided by all reference words; it can exceed 100 %. Both "
        "texts are in upper case, with one kind of apostrophe and single spaces. Where no reference has a word, any error is "
        "100 %. GT_WER is this rate under an attack, TGT_WER the same against the text that the attacker wanted, WER_capped "
        "lets no utterance count more errors than it has words: a few transcripts full of inserted words move the one and not "
        "the other. utterances_with_error counts the transcripts that are not right word for word.",
    ),
    (
        "Intervals",
        "95 % over utterances, in closed form. A rate has a studentised interval of a ratio, corrected for skewness (Hall 1992) "
        "and never narrower than Student's; its upper limit is at least what Clopper and Pearson's limit of the share of "
        "utterances with an error allows. Shares of utterances have Clopper and Pearson's interval: 0 of 16 is [0, 20.6]. "
        "They hold what other utterances would change, not what another training would.",
    ),
    (
        "Differences",
        "WER of a system minus that of the first one on the utterances that both have, and the interval of this "
        "difference. All systems meet the same draws of noise.",
    ),
    (
        "Emptier transcripts",
        f"A cell is marked where its WER lies below the first system's while its share of empty transcripts or of deleted words "
        f"is higher by {LEAST_RISE:g} points at least, with a paired 95 % interval above zero, and less than half of the gain are "
        "words heard right: the rest are words no longer inserted.",
    ),
    (
        "Breaking points",
        "The smallest budget of a grid in dB at which the attack makes the named share of the words wrong, or reaches its target. "
        "Bisection for each utterance, perturbations of neighbouring budgets used again. Their median has the interval between "
        "two order statistics (Thompson 1936), in which utterances outside of the range count as anything beyond its end.",
    ),
    (
        "Cost",
        "Computing time of attack, defence and recogniser as it was measured; forwards and iterations are what the attacker "
        "spent on an utterance, on average, without the passes that judge the result.",
    ),
    (
        "Audio",
        "The audio of this page is compressed (MP3), which keeps what can be heard and drops the rest. The FLAC files of 24 bits "
        "beside the rows are exact: an attack may survive neither the compression nor a rounding to 16 bits.",
    ),
)


def method(grid: Grid) -> str:
    """Definitions, then what each name stands for, with the hashes that its rows carry."""
    terms = "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(text)}</dd>" for term, text in _DEFINITIONS)
    return f"<dl>{terms}</dl>{_runs(grid)}{_parts(grid)}{_entries(grid, 'systems')}{_entries(grid, 'conditions')}"


def _runs(grid: Grid) -> str:
    rows = []
    for run in grid.runs.runs:
        about = "; ".join(f"{name}: {_plain(value)}" for name, value in run.about.items())
        rows.append([run.name, f"{len(run.evaluation.rows):,} of {run.expected:,}", about])
    return scroll("Runs", plain_table(["run", "results", "its evaluation.json"], rows, texts=3))


def _parts(grid: Grid) -> str:
    """Utterances, words and audio of each part, as far as they were seen."""
    rows = []
    for part, about in grid.evaluation.parts.items():
        seen = {row["id"]: row for row in grid.evaluation.rows if row["part"] == part}
        words = sum(row["words"] for row in seen.values())
        minutes = sum(row["audio_seconds"] for row in seen.values()) / 60
        rows.append([part, f"{about['num_utterances']:,}", f"{len(seen):,}", f"{words:,}", f"{minutes:.4g}"])
    return scroll("Parts", plain_table(["part", "utterances", "with results", "words", "minutes"], rows))


def _entries(grid: Grid, kind: str) -> str:
    rows = []
    entries = getattr(grid.evaluation, kind)
    for name, about in entries.items():
        columns = ", ".join(f"{field} {value}" for field, value in about["columns"].items() if value not in (None, ""))
        rows.append([name, about["hash"], columns])
    table = scroll(kind, plain_table([kind[:-1], "hash", "columns"], rows, texts=3))
    full = "".join(
        details(name, f"<pre>{_json(about['description'])}</pre>")
        for name, about in entries.items()
        if "description" in about
    )
    return table + (details(f"Full settings of the {kind}", full, kind="group") if full else "")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _json(value: Any) -> str:
    lines = json.dumps(value, indent=1, ensure_ascii=False).split("\n")
    return "\n".join(map(escaped, lines))
