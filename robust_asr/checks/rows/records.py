"""Are the rows complete and of one data set: every utterance once, its texts, recording and counts those of the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from robust_asr.checks.rows.conditions import cells, conditions_of, of_part
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.metrics import word_edits
from robust_asr.results import Evaluation, Row
from robust_asr.results.compared import compared_reference
from robust_asr.text import normalize

EVERY_UTTERANCE = Question(
    "every utterance is in every cell once",
    "Error rates over different utterances cannot be compared, and utterances that are left out are seldom the easiest.",
)
SAME_TEXT = Question(
    "an utterance has the same reference everywhere",
    "Errors are counted against different texts, so neither number can be trusted.",
)
SAME_RECORDING = Question(
    "an utterance is the same recording everywhere",
    "Systems or conditions were measured on different audio, so their difference says nothing.",
)
OWN_ROWS = Question(
    "rows were made by the systems and conditions described",
    "They are left over from other weights or settings, so the number does not belong to the description beside it.",
)
OWN_COUNTS = Question(
    "counts of errors fit the texts",
    "The file was changed by hand, or written by another version. The tables hold the new counts of these rows.",
)
OWN_TEXT = Question(
    "texts belong to their recordings",
    "Utterances are heard word for word as each other's text: their texts were swapped.",
)
# Words in which a transcript differs from its own reference before it can belong to another one.
_FAR = 3


def check_records(evaluation: Evaluation) -> Iterator[Check]:
    yield from _every_utterance(evaluation)
    yield from _agree(evaluation, SAME_TEXT, lambda row: row["reference"])
    yield from _agree(evaluation, SAME_RECORDING, lambda row: row["hashes"].get("data"))
    yield from _own_rows(evaluation)
    yield from _own_counts(evaluation)
    yield from _own_text(evaluation)


def _every_utterance(evaluation: Evaluation) -> Iterator[Check]:
    known: dict[str, set[str]] = {}
    for _, _, part, rows in cells(evaluation):
        known.setdefault(part, set()).update(row["id"] for row in rows)
    for system, condition, part, rows in cells(evaluation):
        counts, expected = Counter(row["id"] for row in rows), evaluation.parts[part]["num_utterances"]
        missing = sorted(known[part] - counts.keys())
        twice = sorted(name for name, count in counts.items() if count > 1)
        clause = f"{len(counts)} of {expected} utterances{of_part(evaluation, part)}"
        clause += f"; missing {some(missing)}" if missing else ""
        clause += f"; there more than once {some(twice)}" if twice else ""
        holds = len(counts) == expected and not missing and not twice
        yield EVERY_UTTERANCE.verdict(holds, clause, system=system, condition=condition, value=len(counts))


def _agree(evaluation: Evaluation, question: Question, value_of: Callable[[Row], Any]) -> Iterator[Check]:
    """Each cell against the value that most cells have for an utterance."""
    said: dict[tuple[str, str], Counter[Any]] = {}
    for row in evaluation.rows:
        said.setdefault((row["part"], row["id"]), Counter())[value_of(row)] += 1
    usual = {utterance: counts.most_common(1)[0][0] for utterance, counts in said.items()}
    for system, condition, part, rows in cells(evaluation):
        other = [row["id"] for row in rows if value_of(row) != usual[part, row["id"]]]
        clause = f"{len(other)} of {len(rows)} utterances differ from other cells{of_part(evaluation, part)}"
        clause += f": {some(other)}" if other else ""
        yield question.verdict(not other, clause, system=system, condition=condition, value=len(other))


def _own_rows(evaluation: Evaluation) -> Iterator[Check]:
    for system, condition, part, rows in cells(evaluation):
        hashes = {"system": evaluation.systems[system]["hash"], "condition": evaluation.conditions[condition]["hash"]}
        stale = [row["id"] for row in rows if any(row["hashes"].get(kind) != digest for kind, digest in hashes.items())]
        clause = f"{len(stale)} of {len(rows)} rows are of another hash{of_part(evaluation, part)}"
        clause += f": {some(stale)}" if stale else ""
        yield OWN_ROWS.verdict(not stale, clause, system=system, condition=condition, value=len(stale))


def _own_counts(evaluation: Evaluation) -> Iterator[Check]:
    for system, condition, part, rows in cells(evaluation):
        wrong = [f"{row['id']} ({row['recounted']})" for row in rows if "recounted" in row]
        clause = f"{len(wrong)} of {len(rows)} rows were recounted{of_part(evaluation, part)}"
        clause += f": {some(wrong)}" if wrong else ""
        yield OWN_COUNTS.verdict(not wrong, clause, system=system, condition=condition, value=len(wrong))


def _own_text(evaluation: Evaluation) -> Iterator[Check]:
    clean = {condition.name for condition in conditions_of(evaluation) if condition.is_clean}
    if not clean:
        yield OWN_TEXT.not_run("nothing was heard without a disturbance: add robust_asr.attacks.noise.Clean")
    for system, condition, part, rows in cells(evaluation):
        if condition in clean:
            swapped = _swapped(rows)
            clause = (
                f"{len(swapped)} of {len(rows)} utterances are heard as another one's text{of_part(evaluation, part)}"
            )
            clause += f": {some(swapped)}" if swapped else ""
            # A single swap may be chance: a recogniser writes a sentence that it knows from training.
            holds = len(swapped) < 2
            yield OWN_TEXT.verdict(holds, clause, system=system, condition=condition, value=len(swapped))


def _swapped(rows: list[Row]) -> list[str]:
    """Utterances heard exactly as the text of others, all of which are far from their own text too."""
    far = {row["id"] for row in rows if word_edits(row) >= _FAR}
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(normalize(compared_reference(row)), set()).add(row["id"])
    heard = {row["id"]: normalize(row["hypothesis"]) for row in rows if row["id"] in far}
    return [name for name, text in heard.items() if text and owners.get(text) and owners[text] <= far]
