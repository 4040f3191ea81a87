"""What a recogniser heard in the test parts, utterance by utterance, and its error rate with an interval.

``python -m lightning_modules.transcripts runs/*/test/test.jsonl``: each run of a recipe, and their mean.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lightning_modules.distributed import gather_text
from robust_asr.metrics import bootstrap_interval, word_errors


class Transcripts(Callback):
    """Writes ``<run_dir>/test/<part>.jsonl``, a row an utterance, and prints WER with its 95 % bootstrap interval."""

    def __init__(self) -> None:
        self._rows: dict[int, list[str]] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows = {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        rows = self._rows.setdefault(dataloader_idx, [])
        for utterance, reference, transcript in zip(batch.ids, batch.texts, outputs["transcripts"], strict=True):
            errors, words = word_errors(reference, transcript.text)
            row = {
                "id": utterance,
                "reference": reference,
                "hypothesis": transcript.text,
                "errors": errors,
                "words": words,
            }
            rows.append(json.dumps(row))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for index, part in enumerate(trainer.datamodule.dataloader_names("test")):
            rows = sorted(gather_text(self._rows.get(index, [])))
            if trainer.is_global_zero:
                path = Path(trainer.default_root_dir) / "test" / f"{part}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".part")
                partial.write_text("".join(f"{row}\n" for row in rows))
                partial.replace(path)
                print(f"{part}: {summary([json.loads(row) for row in rows])}; rows in {path}")


def summary(rows: list[dict[str, Any]]) -> str:
    """WER over all words, with the interval of a bootstrap over utterances."""
    errors, words = (torch.tensor([row[key] for row in rows]) for key in ("errors", "words"))
    low, high = bootstrap_interval(errors, words)
    empty = sum(not row["hypothesis"] for row in rows) / len(rows)
    return (
        f"WER {100 * errors.sum() / words.sum():.2f} % [{100 * low:.2f}, {100 * high:.2f}], "
        f"{len(rows)} utterances, {int(words.sum())} words, {100 * empty:.1f} % empty"
    )


def mean_summary(runs: list[list[dict[str, Any]]]) -> str:
    """Mean WER of several seeds on the same utterances; the interval is over utterances, each with its mean errors."""
    ids = [row["id"] for row in runs[0]]
    if any([row["id"] for row in rows] != ids for rows in runs):
        raise ValueError("the runs hold different utterances: no mean of them can be taken")
    words = torch.tensor([row["words"] for row in runs[0]], dtype=torch.float64)
    errors = torch.tensor([[row["errors"] for row in rows] for rows in runs], dtype=torch.float64).mean(0)
    low, high = bootstrap_interval(errors, words)
    return f"mean of {len(runs)}: WER {100 * errors.sum() / words.sum():.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def main(paths: list[str]) -> None:
    runs = [[json.loads(line) for line in Path(path).read_text().splitlines()] for path in paths]
    for path, rows in zip(paths, runs, strict=True):
        print(f"{path}: {summary(rows)}")
    print(mean_summary(runs))


if __name__ == "__main__":
    main(sys.argv[1:])
