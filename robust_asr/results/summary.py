"""From rows to the numbers of a table: one line per (system, condition, part, metric), and paired differences between systems."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robust_asr.metrics import word_edits
from robust_asr.results import Evaluation, Row
from robust_asr.results.breaking import SNR, breaking_differences, breaking_lines, is_breaking, without_breaking
from robust_asr.results.csv_cells import encode
from robust_asr.results.intervals import (
    difference_interval,
    in_batches,
    mean_interval,
    rate_interval,
    share_interval,
)
from robust_asr.results.recount import recounted
from robust_asr.storage.files import written_whole
from robust_asr.text.terminal import printable
from robust_asr.types import Status

# The columns of the papers' tables (robust_asr/results/paper_results), so that the tables can be joined; then our own.
PAPER_COLUMNS = "system model defense sigma attack norm strength strength_unit eval_set metric value unit note".split()
COLUMNS = [*PAPER_COLUMNS, *"knowledge n ci_low ci_high seconds forwards condition".split()]
_CAPPED = partial(rate_interval, most=1)
# Fields of rows whose means are metrics: the metric's name and unit.
_MEASURED = {
    "snr_db": ("SNR", "dB"),
    "changed_samples": ("changed_samples", "%"),
    "masking_excess": ("masking_excess", "dB"),
}
DIFFERENCE_COLUMNS = "condition eval_set metric system baseline value unit n ci_low ci_high".split()


class Summary(NamedTuple):
    """The lines of ``summary.csv`` and of ``differences.csv``, computed once and passed on."""

    lines: list[dict[str, Any]]
    differences: list[dict[str, Any]]


def summary_of(evaluation: Evaluation) -> Summary:
    return Summary(summarize(evaluation), differences(evaluation))


def summarize(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One line per metric of each cell that has rows; intervals are of 95 % over utterances (``intervals.py``).

    WER counts all word edits over all reference words. ``GT_WER`` is its name under an attack, ``TGT_WER`` compares with the
    target. ``WER_capped`` lets no utterance count more errors than it has words, so a few transcripts full of inserted words
    cannot make it; ``utterances_with_error`` is the share of transcripts that are not right word for word. A cell that lacks
    utterances says so in ``note``. Breaking points come last, under metrics of their own (``breaking.breaking_lines``).

    Units: value, ci_low and ci_high in ``unit``; seconds are the sum over the utterances, forwards the mean of them.
    """
    shared, metrics, breaking = [], [], []
    for part in evaluation.parts:
        for condition, about in evaluation.conditions.items():
            for system in evaluation.systems:
                rows = evaluation.select(system, condition, part)
                if not rows:
                    continue
                columns = _shared(evaluation, system, about["columns"], condition, part, rows)
                if is_breaking(about):
                    breaking += [{**columns, **line} for line in breaking_lines(rows)]
                else:
                    found = _metrics(rows, attacked=is_attack(about))
                    shared += [columns] * len(found)
                    metrics += found
    return [*({**columns, **line} for columns, line in zip(shared, _lines(metrics), strict=True)), *breaking]


def is_attack(condition: dict[str, Any]) -> bool:
    """Whether an attacker aimed: noise and clean audio have no column ``knowledge``."""
    return bool(condition["columns"].get("knowledge"))


def cell_metrics(rows: Sequence[Row], *, attacked: bool) -> list[dict[str, Any]]:
    """``metric``, ``value``, ``unit``, ``n``, ``ci_low`` and ``ci_high`` of one cell of the table."""
    return _lines(_metrics(rows, attacked=attacked))


class _Metric(NamedTuple):
    """``counts`` of each utterance, and the ``total`` of words, characters or ones that they are divided by."""

    name: str
    counts: Tensor
    total: Tensor
    interval: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    unit: str = "%"


def _metrics(rows: Sequence[Row], *, attacked: bool) -> list[_Metric]:
    # An utterance whose reference has no words has nothing to be wrong about; ``remarks`` counts it.
    rows = [row for row in rows if row["words"]] or rows
    words, edits = counts(rows, "words"), edit_counts(rows)
    share = partial(_frequency, ones=torch.ones_like(words))
    metrics = [
        _Metric("GT_WER" if attacked else "WER", edits, words, rate_interval),
        _Metric("WER_capped", edits.minimum(words), words, _CAPPED),
        _Metric("CER", counts(rows, "character_errors"), counts(rows, "characters"), rate_interval),
        _Metric("insertions", counts(rows, "insertions"), words, rate_interval),
        *(_Metric(name, counts(rows, name), words, _CAPPED) for name in ("deletions", "substitutions")),
        share("utterances_with_error", edits > 0),
        share("empty_hypotheses", [not row["hypothesis"].strip() for row in rows]),
    ]
    targeted = [row for row in rows if row.get("target") is not None]
    if targeted:
        errors, total = counts(targeted, "target_errors"), counts(targeted, "target_words")
        metrics.append(_Metric("TGT_WER", errors, total, rate_interval))
    if attacked:
        succeeded = [bool(row.get("success")) for row in rows]
        metrics += [share("success_rate", succeeded), share("unsuccessful_rate", [not each for each in succeeded])]
    return [*metrics, *_means(rows, ("snr_db", "changed_samples", "masking_excess") if attacked else ("snr_db",))]


def _means(rows: Sequence[Row], fields: Sequence[str]) -> Iterator[_Metric]:
    """Means of the fields, each over the utterances that have it."""
    for field in fields:
        found = [row[field] for row in rows if row.get(field) is not None]
        if found:
            name, unit = _MEASURED[field]
            values = torch.tensor(found, dtype=torch.float64)
            yield _Metric(name, values, torch.ones_like(values), _mean, unit)


def _frequency(name: str, happened: Sequence[bool] | Tensor, ones: Tensor) -> _Metric:
    """The share of the utterances to which something happened."""
    return _Metric(name, torch.as_tensor(happened, dtype=torch.float64), ones, _shares)


def _shares(happened: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
    limits = [share_interval(int(count), ones.shape[-1]) for count in happened.sum(-1)]
    low, high = torch.tensor(limits, dtype=torch.float64).T
    return low, high


def _mean(values: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
    return mean_interval(values)


def _lines(metrics: Sequence[_Metric]) -> list[dict[str, Any]]:
    """The line of each metric. The intervals of one kind are computed together, since each alone takes as long as hundreds."""
    values = [_share(metric.counts, metric.total) for metric in metrics]
    limits = [(value, value) for value in values]
    for interval in {metric.interval for metric in metrics}:
        alike = [place for place, metric in enumerate(metrics) if metric.interval is interval and metric.total.sum()]
        found = in_batches(interval, [(metrics[place].counts, metrics[place].total) for place in alike])
        for place, pair in zip(alike, found, strict=True):
            limits[place] = pair
    return [
        {"metric": metric.name, "value": scale * value, "unit": metric.unit, "n": len(metric.counts)}
        | {"ci_low": scale * low, "ci_high": scale * high}
        for metric, value, (low, high) in zip(metrics, values, limits, strict=True)
        for scale in (100 if metric.unit == "%" else 1,)
    ]


def edit_counts(rows: Sequence[Row]) -> Tensor:
    """Word edits of each row; none where only its own reference has no words. Shape: (N,)."""
    spoken = any(row["words"] for row in rows)
    return torch.tensor([word_edits(row) if row["words"] or not spoken else 0 for row in rows], dtype=torch.float64)


def differences(evaluation: Evaluation) -> list[dict[str, Any]]:
    """WER of each system minus that of each one before it, on the utterances that both have, under each condition.

    The differences to the first system come first; then those of breaking points, in dB. Paired: the interval is that of the
    difference on the same utterances.
    """
    lines, gains = [], []
    for part in evaluation.parts:
        for condition, about in without_breaking(evaluation.conditions).items():
            known = {
                name: {row["id"]: row for row in evaluation.select(name, condition, part)}
                for name in evaluation.systems
            }
            for baseline, system in combinations(evaluation.systems, 2):
                shared = [name for name in known[system] if name in known[baseline]]
                if shared:
                    sides = [[known[name][utterance] for utterance in shared] for name in (system, baseline)]
                    metric = "GT_WER" if is_attack(about) else "WER"
                    lines.append((condition, part, metric, system, baseline, len(shared)))
                    gains.append(_gain(*sides))
    found = _paired(gains)
    return [
        dict(zip(DIFFERENCE_COLUMNS, (*names, value, "% absolute", num, low, high), strict=True))
        for (*names, num), (value, low, high) in zip(lines, found, strict=True)
    ] + breaking_differences(evaluation)


def paired_difference(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, float, float]:
    """WER of ``rows`` minus WER of ``others`` and its 95 % interval, in per cent; both hold the same utterances in one order."""
    if [row["id"] for row in rows] != [row["id"] for row in others]:
        raise ValueError("a paired difference needs the same utterances in the same order on both sides")
    return _paired([_gain(rows, others)])[0]


def _gain(rows: Sequence[Row], others: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """How many errors more than in ``others`` each utterance has, and its words. Of no word at all any error is one."""
    (edits, other_edits), words = [edit_counts(side) for side in (rows, others)], counts(rows, "words")
    if words.sum():
        return edits - other_edits, words
    return torch.tensor([_share(edits, words) - _share(other_edits, words)]), words[:1]


def _paired(gains: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[float, float, float]]:
    """Value and limits of each, in per cent."""
    spoken = [gain for gain in gains if gain[1].sum()]
    limits = iter(in_batches(difference_interval, spoken))
    values = [float(change.sum() / words.sum().clamp(min=1)) for change, words in gains]
    found = [next(limits) if words.sum() else (value, value) for value, (_, words) in zip(values, gains, strict=True)]
    return [(100 * value, 100 * low, 100 * high) for value, (low, high) in zip(values, found, strict=True)]


def headline(evaluation: Evaluation, summary: Summary | None = None) -> str:
    """WER of each system under each condition, or its median breaking point, with the interval, as text for a terminal.

    ``summary`` is that of the evaluation, where it is there already.
    """
    summary = summary or summary_of(evaluation)
    lines = [line for line in summary.lines if line["metric"] in ("WER", "GT_WER", SNR)]
    width = max((len(line["condition"]) for line in lines), default=0)
    shown = []
    for part, condition in dict.fromkeys((line["eval_set"], line["condition"]) for line in lines):
        cells = [
            f"{line['system']} {_two_digits(line['value'])} {line['unit']} [{line['ci_low']:.2f}, {line['ci_high']:.2f}]"
            + (f" ({line['note']})" if line["note"] else "")
            for line in lines
            if (line["eval_set"], line["condition"]) == (part, condition)
        ]
        shown.append(f"{part}  {condition:<{width}}  " + "   ".join(cells))
    return "\n".join(printable(line) for line in shown)


def _two_digits(value: float | str) -> str:
    """A value; the bound that a breaking point may be is a text already."""
    return value if isinstance(value, str) else f"{value:6.2f}"


def write_table(path: Path, lines: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """A CSV file, whole or not at all; no cell is a formula."""
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for line in lines:
            writer.writerow(["" if line.get(name) is None else encode(_rounded(line[name])) for name in columns])


def write_summary(evaluation: Evaluation) -> Summary:
    """``summary.csv`` and, where there are several systems, ``differences.csv`` in the run folder. Returns their lines."""
    summary = summary_of(evaluation)
    write_table(evaluation.run_dir / "summary.csv", summary.lines, COLUMNS)
    if len(evaluation.systems) > 1:
        write_table(evaluation.run_dir / "differences.csv", summary.differences, DIFFERENCE_COLUMNS)
    return summary


def _shared(
    evaluation: Evaluation, system: str, columns: dict[str, Any], condition: str, part: str, rows: Sequence[Row]
) -> dict[str, Any]:
    return {
        **evaluation.systems[system]["columns"],
        **columns,
        "system": system,
        "eval_set": part,
        "condition": condition,
        "note": _note(rows, evaluation.parts[part]["num_utterances"]),
        "seconds": sum(row["seconds"] for row in rows),
        "forwards": sum(row["forwards"] for row in rows) / len(rows),
    }


def with_status(rows: Sequence[Row], status: Status) -> int:
    """The number of rows with a status."""
    return sum(row["status"] == status for row in rows)


def remarks(rows: Sequence[Row]) -> list[str]:
    """Sentences on the utterances of a cell whose counts were changed, or on which the attack did not run as it should.

    Those that warn come first. A masked gradient warns, because the attack ran and never moved: the cell overstates robustness.
    """
    masked, refused, broken_off = (
        with_status(rows, status) for status in (Status.MASKED_GRADIENT, Status.REFUSED, Status.BROKEN_OFF)
    )
    unperturbed = sum(row.get("snr_db") is None for row in rows)
    changed = recounted(rows)
    wordless = sum(not row["words"] for row in rows)
    sentences = {
        f"warning: {changed}": changed != "",
        f"warning: gradient masked on {masked}": masked > 0,
        f"{wordless} without words in the reference, not counted": 0 < wordless < len(rows),
        f"{refused} refused by the attack": refused > 0,
        f"{broken_off} broken off": broken_off > 0,
        f"{unperturbed} not perturbed, not in SNR": 0 < unperturbed < len(rows),
    }
    return [sentence for sentence, holds in sentences.items() if holds]


def _note(rows: Sequence[Row], expected: int) -> str:
    partial = [f"{len(rows)} of {expected} utterances"] if len(rows) < expected else []
    return "; ".join([*partial, *remarks(rows)])


def counts(rows: Sequence[Row], name: str) -> Tensor:
    """A number of each row. Shape: (N,)."""
    return torch.tensor([row[name] for row in rows], dtype=torch.float64)


def _share(errors: Tensor, total: Tensor) -> float:
    """Errors divided by the total; where the total is zero, 1 if there is any error, as in ``robust_asr.metrics``."""
    return float(errors.sum() / total.sum()) if total.sum() else float(bool(errors.sum()))


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
