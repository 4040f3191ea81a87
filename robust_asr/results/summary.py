"""From rows to the numbers of a table: one line per (system, condition, part, metric), and paired differences between systems."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robust_asr.metrics import bootstrap_interval, word_edits
from robust_asr.results import Evaluation, Row
from robust_asr.results.csv_cells import encode
from robust_asr.results.recount import recounted
from robust_asr.storage.files import written_whole
from robust_asr.text.terminal import printable
from robust_asr.types import Status

# The columns of the papers' tables (robust_asr/results/paper_results), so that the tables can be joined; then our own.
PAPER_COLUMNS = "system model defense sigma attack norm strength strength_unit eval_set metric value unit note".split()
COLUMNS = [*PAPER_COLUMNS, *"knowledge n ci_low ci_high seconds forwards condition".split()]
DIFFERENCE_COLUMNS = "condition eval_set metric system baseline value unit n ci_low ci_high".split()


class Summary(NamedTuple):
    """The lines of ``summary.csv`` and of ``differences.csv``. Each holds bootstraps, so that it is computed once and passed on."""

    lines: list[dict[str, Any]]
    differences: list[dict[str, Any]]


def summary_of(evaluation: Evaluation) -> Summary:
    return Summary(summarize(evaluation), differences(evaluation))


def summarize(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One line per metric of each cell that has rows; intervals are 95 % bootstraps over utterances.

    WER counts all word edits over all reference words. ``GT_WER`` is its name under an attack, ``TGT_WER`` compares with the
    target. ``wer_capped`` lets no utterance count more errors than it has words. A cell that lacks utterances says so in
    ``note``.

    Units: value, ci_low and ci_high in ``unit``; seconds are the sum over the utterances, forwards the mean of them.
    """
    lines = []
    for part in evaluation.parts:
        for condition, about in evaluation.conditions.items():
            for system in evaluation.systems:
                rows = evaluation.select(system, condition, part)
                if rows:
                    shared = _shared(evaluation, system, about["columns"], condition, part, rows)
                    lines += [{**shared, **metric} for metric in cell_metrics(rows, attacked=is_attack(about))]
    return lines


def is_attack(condition: dict[str, Any]) -> bool:
    """Whether an attacker aimed: noise and clean audio have no column ``knowledge``."""
    return bool(condition["columns"].get("knowledge"))


def cell_metrics(rows: Sequence[Row], *, attacked: bool) -> list[dict[str, Any]]:
    """``metric``, ``value``, ``unit``, ``n``, ``ci_low`` and ``ci_high`` of one cell of the table."""
    words = counts(rows, "words")
    edits = edit_counts(rows)
    ones = torch.ones(len(rows), dtype=torch.float64)
    metrics = [
        _rate("GT_WER" if attacked else "WER", edits, words),
        _rate("WER_capped", edits.minimum(words), words),
        _rate("CER", counts(rows, "character_errors"), counts(rows, "characters")),
        *(_rate(name, counts(rows, name), words) for name in ("insertions", "deletions", "substitutions")),
        _rate("empty_hypotheses", torch.tensor([float(not row["hypothesis"].strip()) for row in rows]), ones),
    ]
    targeted = [row for row in rows if row.get("target") is not None]
    if targeted:
        metrics.append(_rate("TGT_WER", counts(targeted, "target_errors"), counts(targeted, "target_words")))
    if attacked:
        failed = torch.tensor([float(not row.get("success")) for row in rows])
        metrics += [_rate("success_rate", 1 - failed, ones), _rate("unsuccessful_rate", failed, ones)]
    snr = torch.tensor([row["snr_db"] for row in rows if row.get("snr_db") is not None], dtype=torch.float64)
    if len(snr):
        metrics.append(_mean("SNR", snr, "dB"))
    return metrics


def edit_counts(rows: Sequence[Row]) -> Tensor:
    """Word edits of each row. Shape: (N,)."""
    return torch.tensor([word_edits(row) for row in rows], dtype=torch.float64)


def differences(evaluation: Evaluation) -> list[dict[str, Any]]:
    """WER of each system minus that of the first one, on the utterances that both have, under each condition.

    Paired: one bootstrap draws the same utterances for both, so the interval is that of the difference.
    """
    baseline, *others = evaluation.systems or [""]
    lines = []
    for part in evaluation.parts:
        for condition, about in evaluation.conditions.items():
            first = {row["id"]: row for row in evaluation.select(baseline, condition, part)}
            for system in others:
                second = [row for row in evaluation.select(system, condition, part) if row["id"] in first]
                if second:
                    value, low, high = paired_difference(second, [first[row["id"]] for row in second])
                    metric = "GT_WER" if is_attack(about) else "WER"
                    cell = (condition, part, metric, system, baseline, value, "% absolute", len(second), low, high)
                    lines.append(dict(zip(DIFFERENCE_COLUMNS, cell, strict=True)))
    return lines


def paired_difference(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, float, float]:
    """WER of ``rows`` minus WER of ``others`` and its 95 % interval, in per cent; both hold the same utterances in one order."""
    if [row["id"] for row in rows] != [row["id"] for row in others]:
        raise ValueError("a paired difference needs the same utterances in the same order on both sides")
    words = counts(rows, "words")
    gain = edit_counts(rows) - edit_counts(others)
    if not words.sum():
        value = _share(edit_counts(rows), words) - _share(edit_counts(others), words)
        return 100 * value, 100 * value, 100 * value
    low, high = bootstrap_interval(gain, words)
    return 100 * float(gain.sum() / words.sum()), 100 * low, 100 * high


def headline(evaluation: Evaluation, summary: Summary | None = None) -> str:
    """WER of each system under each condition with its interval, as text for a terminal.

    ``summary`` is that of the evaluation, where it is there already.
    """
    summary = summary or summary_of(evaluation)
    lines = [line for line in summary.lines if line["metric"] in ("WER", "GT_WER")]
    width = max((len(line["condition"]) for line in lines), default=0)
    shown = []
    for part, condition in dict.fromkeys((line["eval_set"], line["condition"]) for line in lines):
        cells = [
            f"{line['system']} {line['value']:6.2f} % [{line['ci_low']:.2f}, {line['ci_high']:.2f}]"
            + (f" ({line['note']})" if line["note"] else "")
            for line in lines
            if (line["eval_set"], line["condition"]) == (part, condition)
        ]
        shown.append(f"{part}  {condition:<{width}}  " + "   ".join(cells))
    return "\n".join(printable(line) for line in shown)


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
    sentences = {
        f"warning: {changed}": changed != "",
        f"warning: gradient masked on {masked}": masked > 0,
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


def _rate(metric: str, errors: Tensor, total: Tensor) -> dict[str, Any]:
    value = _share(errors, total)
    low, high = bootstrap_interval(errors, total) if total.sum() else (value, value)
    return {
        "metric": metric,
        "value": 100 * value,
        "unit": "%",
        "n": len(errors),
        "ci_low": 100 * low,
        "ci_high": 100 * high,
    }


def _mean(metric: str, values: Tensor, unit: str) -> dict[str, Any]:
    low, high = bootstrap_interval(values, torch.ones_like(values))
    return {
        "metric": metric,
        "value": float(values.mean()),
        "unit": unit,
        "n": len(values),
        "ci_low": low,
        "ci_high": high,
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
