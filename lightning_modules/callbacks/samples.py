"""Samples of the recogniser's transcripts with their audio, after every validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from lightning_modules.loggers.csv_logger import RunCSVLogger
from lightning_modules.loggers.wandb_logger import RunWandbLogger
from lightning_modules.trainer_internals import batches_stepped
from robust_asr.randomness import utterance_seeds
from robust_asr.report.samples import Sample, samples_page
from robust_asr.storage.files import written_whole
from robust_asr.text.alignment import align, align_text
from robust_asr.types import AudioBatch

_COLUMNS = ["id", "audio", "reference", "hypothesis", "alignment", "wer"]


class DashboardSamples(Callback):
    """Shows a handful of utterances of each evaluation set, the same ones after every validation.

    Written by rank zero: ``<run_dir>/samples/step-<step>.html``, and a W&B table ``samples/<part>`` where W&B is
    configured. The step is the one of the row of that validation in ``metrics.csv``.

    The module has a ``sample_rate``, its ``validation_step`` returns ``{"batch": AudioBatch, "transcripts": list[Transcript]}``; it
    asks for this callback in ``configure_callbacks``. ``trainer.datamodule.dataloader_names("validate")`` names the sets, else
    they are val0, val1, ...

    Args:
        num_samples: utterances of each set. They are chosen by a hash of their ids, among those that rank zero decodes.
        max_seconds: longer audio is cut, the text is not.
        keep: pages that stay in the folder, the newest ones.
    """

    def __init__(self, *, num_samples: int = 4, max_seconds: float = 10.0, keep: int = 10) -> None:
        for name, value in (("num_samples", num_samples), ("keep", keep)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if not 0 < max_seconds <= 60:
            raise ValueError(f"max_seconds must be above 0 and at most 60, found {max_seconds}")
        self.num_samples = num_samples
        self.max_seconds = max_seconds
        self.keep = keep
        self._chosen: dict[int, list[tuple[int, Sample]]] = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._chosen = {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.fast_dev_run:
            return
        heard: AudioBatch = outputs["batch"]
        chosen = self._chosen.setdefault(dataloader_idx, [])
        for row, rank in enumerate(utterance_seeds(0, heard.ids).tolist()):
            if len(chosen) < self.num_samples or rank < chosen[-1][0]:
                sample = self._sample(heard, row, outputs["transcripts"][row].text, pl_module.sample_rate)
                chosen.append((rank, sample))
                chosen.sort(key=lambda entry: entry[0])
                del chosen[self.num_samples :]

    def _sample(self, heard: AudioBatch, row: int, hypothesis: str, sample_rate: int) -> Sample:
        length = min(int(heard.lengths[row]), int(self.max_seconds * sample_rate))
        waveform = heard.waveforms[row, :length].detach().float().cpu().clone()
        return Sample(heard.ids[row], heard.texts[row], hypothesis, waveform, sample_rate)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        chosen, self._chosen = self._chosen, {}
        if not chosen:
            return
        names = _part_names(trainer)
        parts = {
            names[index] if index < len(names) else f"val{index}": [sample for _, sample in entries]
            for index, entries in sorted(chosen.items())
        }
        step = batches_stepped(trainer)
        self._write_page(trainer, step, parts)
        for logger in trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.log_metrics({f"samples/{part}": _table(samples) for part, samples in parts.items()}, step)

    def _write_page(self, trainer: pl.Trainer, step: int, parts: dict[str, list[Sample]]) -> None:
        folders = [logger.run_dir for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]
        folder = Path(folders[0] if folders else trainer.default_root_dir) / "samples"
        fitting = trainer.state.fn == "fit"
        page = folder / (f"step-{step:06d}.html" if fitting else f"{trainer.state.fn}.html")
        title = f"Step {step}, epoch {trainer.current_epoch}" if fitting else "Validation"
        with written_whole(page) as partial:
            partial.write_text(samples_page(title, parts, notes=_notes(trainer, parts)), encoding="utf-8")
        for old in sorted(folder.glob("step-*.html"), key=lambda path: (len(path.name), path.name))[: -self.keep]:
            old.unlink()


def _part_names(trainer: pl.Trainer) -> list[str]:
    datamodule = getattr(trainer, "datamodule", None)
    return list(datamodule.dataloader_names("validate")) if hasattr(datamodule, "dataloader_names") else []


def _notes(trainer: pl.Trainer, parts: dict[str, list[Sample]]) -> dict[str, str]:
    rates = {part: trainer.callback_metrics.get(f"val/{part}/wer") for part in parts}
    return {part: f"WER of the whole set {100 * float(rate):.1f} %" for part, rate in rates.items() if rate is not None}


def _table(samples: list[Sample]) -> Any:
    import wandb

    rows = []
    for sample in samples:
        alignment = align(sample.reference, sample.hypothesis)
        audio = wandb.Audio(sample.waveform.numpy(), sample_rate=sample.sample_rate)
        aligned = align_text(sample.reference, sample.hypothesis)
        rows.append([sample.id, audio, sample.reference, sample.hypothesis, aligned, alignment.word_error_rate])
    return wandb.Table(columns=_COLUMNS, data=rows)
