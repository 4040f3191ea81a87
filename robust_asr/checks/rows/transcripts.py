"""Is something heard at all: a recogniser that writes nothing, or always the same, looks robust against everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from robust_asr.checks.rows.conditions import Condition, cells, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question
from robust_asr.results import Evaluation, Row
from robust_asr.results.summary import paired_difference
from robust_asr.text import normalize

HEARS = Question(
    "clean audio is heard",
    "What hears nothing, or always the same, cannot be fooled: its numbers under attack say nothing about robustness.",
)
EMPTIER = Question(
    "no gain comes from empty or constant transcripts",
    "The lower error rate is that of a recogniser that stopped listening, not of a robust one.",
)
# More than half: noise and attacks do empty single transcripts, and a corpus of commands repeats single sentences.
_SHARE = 0.5


def check_transcripts(evaluation: Evaluation) -> Iterator[Check]:
    conditions = {condition.name: condition for condition in conditions_of(evaluation)}
    baseline = next(iter(evaluation.systems), "")
    for part, name, system, rows in cells(evaluation):
        if conditions[name].is_clean:
            yield _heard(HEARS, rows, True, system=system, condition=name, where=of_part(evaluation, part))
        elif system != baseline:
            first = evaluation.select(baseline, name, part)
            yield _emptier(rows, first, conditions[name], system, of_part(evaluation, part))


def _emptier(rows: list[Row], first: list[Row], condition: Condition, system: str, where: str) -> Check:
    """Fails where the error rate lies clearly below the first system's and the transcripts are mute."""
    known = {row["id"]: row for row in first}
    shared = [row for row in rows if row["id"] in known]
    if not shared:
        return EMPTIER.not_run("the first system was not heard under it", system=system, condition=condition.name)
    _, _, high = paired_difference(shared, [known[row["id"]] for row in shared])
    return _heard(EMPTIER, rows, high < 0, system=system, condition=condition.name, where=where)


def _heard(question: Question, rows: list[Row], counts: bool, *, system: str, condition: str, where: str) -> Check:
    empty, constant = _empty(rows), _constant(rows)
    found = f"{100 * empty:.0f} % of the transcripts are empty, {100 * constant:.0f} % are one and the same{where}"
    holds = not (counts and max(empty, constant) > _SHARE)
    return question.verdict(holds, found, system=system, condition=condition, value=100 * max(empty, constant))


def _empty(rows: Sequence[Row]) -> float:
    """The share of transcripts without a word, of utterances that have words."""
    spoken = [row for row in rows if row["words"]]
    return sum(not normalize(row["hypothesis"]) for row in spoken) / len(spoken) if spoken else 0.0


def _constant(rows: Sequence[Row]) -> float:
    """The share of the most frequent transcript, of utterances that were not to be heard as just that."""
    heard = Counter(normalize(row["hypothesis"]) for row in rows if not _wanted(row))
    common, count = heard.most_common(1)[0] if heard else ("", 0)
    return count / len(rows) if common and len(rows) > 2 else 0.0


def _wanted(row: Row) -> bool:
    hypothesis = normalize(row["hypothesis"])
    return hypothesis in (normalize(row["reference"]), normalize(row.get("target") or ""))
