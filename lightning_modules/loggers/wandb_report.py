"""An evaluation on the W&B dashboard: the same numbers as ``summary.csv``, and the worst utterances to listen to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from robust_asr.metrics import word_edits
from robust_asr.report.clips import read_clip
from robust_asr.results import Evaluation, Row, audio_path, key
from robust_asr.results.breaking import without_breaking
from robust_asr.results.compared import compared_reference
from robust_asr.results.summary import COLUMNS, DIFFERENCE_COLUMNS, Summary, summary_of
from robust_asr.results.worst import worst_rows
from robust_asr.text.alignment import align_text
from robust_asr.text.terminal import printable

_WORST_COLUMNS = [
    "number",
    "system",
    "condition",
    "part",
    "id",
    "wer",
    "snr_db",
    "reference",
    "hypothesis",
    "alignment",
]


def log_report(run: Any, evaluation: Evaluation, summary: Summary | None = None, *, num_worst: int = 3) -> None:
    """Show an evaluation, also an unfinished one, on a W&B run; rank zero only.

    ``evaluation/summary``, ``evaluation/differences`` and ``evaluation/worst`` become tables, ``evaluation/audio/clean`` and
    ``.../attacked`` players of what the run folder holds of the worst utterances, under their numbers in the table, and
    ``wer/<part>/<condition>/<system>`` values of the run's summary, in per cent.

    Args:
        run: a W&B run, ``RunWandbLogger.experiment``.
        summary: that of the evaluation, where it is there already.
        num_worst: utterances of each cell in ``evaluation/worst``.
    """
    if num_worst < 0:
        raise ValueError(f"num_worst must be 0 or more, found {num_worst}")
    lines, paired = summary or summary_of(evaluation)
    worst = _worst(evaluation, num_worst)
    tables = {
        "summary": _table(COLUMNS, ([line.get(name) for name in COLUMNS] for line in lines)),
        "differences": _table(DIFFERENCE_COLUMNS, ([line[name] for name in DIFFERENCE_COLUMNS] for line in paired)),
        "worst": _table(_WORST_COLUMNS, (_cells(number, row) for number, row in enumerate(worst, start=1))),
    }
    run.log({f"evaluation/{name}": content for name, content in (tables | _audio(evaluation, worst)).items()})
    rates = [line for line in lines if line["metric"] in ("WER", "GT_WER")]
    run.summary.update({_name(line): line["value"] for line in rates})


def _name(line: dict[str, Any]) -> str:
    return printable("/".join(["wer", line["eval_set"], line["condition"], line["system"]]))


def _worst(evaluation: Evaluation, num_worst: int) -> list[Row]:
    cells = [
        (s, c, p) for p in evaluation.parts for c in without_breaking(evaluation.conditions) for s in evaluation.systems
    ]
    return [row for cell in cells for row in worst_rows(evaluation.select(*cell), keep=num_worst)]


def _cells(number: int, row: Row) -> list[Any]:
    rate = 100 * word_edits(row) / row["words"] if row["words"] else None
    texts = [row["reference"], row["hypothesis"], align_text(compared_reference(row), row["hypothesis"])]
    return [number, *key(row), rate, row.get("snr_db"), *texts]


def _audio(evaluation: Evaluation, worst: Sequence[Row]) -> dict[str, list[Any]]:
    """Players beside the table: W&B would keep the audio of a table outside the run folder until it is uploaded."""
    import wandb

    players: dict[str, list[Any]] = {"audio/clean": [], "audio/attacked": []}
    for number, row in enumerate(worst, start=1):
        places = {"audio/clean": (row["part"], row["id"]), "audio/attacked": key(row)}
        caption = printable(f"{number}: {row['system']}, {row['condition']}, {row['id']}")
        for name, place in places.items():
            clip = read_clip(audio_path(evaluation.run_dir, *place), evaluation.run_dir)
            if clip is not None:
                players[name].append(wandb.Audio(clip.waveform.numpy(), sample_rate=clip.sample_rate, caption=caption))
    return {name: clips for name, clips in players.items() if clips}


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    import wandb

    # A column of W&B has one type, and a strength is a number or a word such as "unbounded".
    typed = list(map(_one_type, zip(*rows, strict=True)))
    return wandb.Table(columns=list(columns), data=[list(row) for row in zip(*typed, strict=True)])


def _one_type(column: Sequence[Any]) -> list[Any]:
    texts = any(isinstance(value, str) for value in column)
    return [_text(value) if texts and value is not None else value for value in column]


def _text(value: Any) -> str:
    """The lines of a text, without characters that would turn its direction or hide it."""
    return "\n".join(map(printable, str(value).split("\n")))
