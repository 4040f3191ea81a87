"""Does the recogniser hear anything: one that writes nothing, or always the same, looks robust against every attack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from robust_asr.checks.rows.conditions import cells, of_part
from robust_asr.checks.verdicts import Check, Question
from robust_asr.results import Evaluation, Row
from robust_asr.results.breaking import is_breaking
from robust_asr.results.compared import compared_reference, compared_target
from robust_asr.results.emptier import emptier_gain
from robust_asr.results.families import clean_conditions
from robust_asr.results.summary import paired_difference
from robust_asr.text import normalize

HEARS = Question(
    "clean audio is heard",
    "A recogniser that hears nothing, or always the same, cannot be fooled: its numbers under attack say nothing about robustness.",
)
EMPTIER = Question(
    "no gain comes from empty or constant transcripts",
    "The lower error rate is that of a recogniser that stopped listening, not of a robust one.",
)
# The share of transcripts of one system that may be empty, or the same. Half of them: noise and attacks empty single
# transcripts, and a corpus of commands repeats single sentences. ``robust_asr.results.emptier`` asks whether a gain over
# another system comes from emptier transcripts.
_SHARE = 0.5


def check_transcripts(evaluation: Evaluation) -> Iterator[Check]:
    clean = clean_conditions(evaluation.conditions)
    baseline = next(iter(evaluation.systems), "")
    for system, name, part, rows in cells(evaluation):
        if name in clean:
            yield _hears(rows, system=system, condition=name, where=of_part(evaluation, part))
        elif system != baseline and not is_breaking(evaluation.conditions[name]):
            first = evaluation.select(baseline, name, part)
            yield _gains(rows, first, baseline, system=system, condition=name, where=of_part(evaluation, part))


def _hears(rows: list[Row], *, system: str, condition: str, where: str) -> Check:
    empty, constant = _empty(rows), _constant(rows)
    shares = _shares(empty, constant, where)
    largest = max(empty, constant)
    return HEARS.verdict(largest <= _SHARE, shares, system=system, condition=condition, value=100 * largest)


def _gains(rows: list[Row], first: list[Row], baseline: str, *, system: str, condition: str, where: str) -> Check:
    """Fails where the error rate lies below the first system's because transcripts are emptier, or because all are the same."""
    known = {row["id"]: row for row in first}
    shared = [row for row in rows if row["id"] in known]
    if not shared:
        return EMPTIER.not_run("the first system was not heard under it", system=system, condition=condition)
    empty, constant = _empty(rows), _constant(rows)
    emptier = emptier_gain(shared, first)
    _, _, high = paired_difference(shared, [known[row["id"]] for row in shared])
    is_constant = high < 0 and constant > _SHARE
    clause = _shares(empty, constant, where) if emptier is None else f"{emptier.sentence(baseline)}{where}"
    holds = emptier is None and not is_constant
    return EMPTIER.verdict(holds, clause, system=system, condition=condition, value=100 * max(empty, constant))


def _shares(empty: float, constant: float, where: str) -> str:
    return f"{100 * empty:.0f} % of the transcripts are empty, {100 * constant:.0f} % are one and the same{where}"


def _empty(rows: Sequence[Row]) -> float:
    """The share of utterances with words whose transcript has none."""
    spoken = [row for row in rows if row["words"]]
    return sum(not normalize(row["hypothesis"]) for row in spoken) / len(spoken) if spoken else 0.0


def _constant(rows: Sequence[Row]) -> float:
    """The share of the most frequent transcript, where it is neither the reference nor the target of its utterance."""
    heard = Counter(normalize(row["hypothesis"]) for row in rows if not _wanted(row))
    common, count = heard.most_common(1)[0] if heard else ("", 0)
    return count / len(rows) if common and len(rows) > 2 else 0.0


def _wanted(row: Row) -> bool:
    hypothesis = normalize(row["hypothesis"])
    return hypothesis in (normalize(compared_reference(row)), normalize(compared_target(row)))
