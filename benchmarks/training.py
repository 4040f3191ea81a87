"""The overhead of Lightning and the data pipeline: the time of an epoch over the time of a plain loop on tensors in memory.

The first epoch decodes FLAC in the training process; later epochs read the samples from the cache, which holds a small corpus.

``python -m benchmarks.training [--corpus FOLDER] [--repeats N]``. Both take turns in one process; the reported ratio is the median.
"""

from __future__ import annotations

import statistics
import tempfile
import time

import pytorch_lightning as pl
import torch

from benchmarks.corpus import arguments, hardware, manifests
from datamodules import Speech
from lightning_modules.recognition import Recognition
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.types import AudioBatch


class EpochClock(pl.Callback):
    """Measures the seconds of each training epoch, from its start to its end, including loading."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._start)


class Optimized(Recognition):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def through_lightning(recognizer: Recognizer, data: Speech) -> tuple[float, float]:
    """Train with Lightning; returns the seconds of the first and of the second epoch."""
    clock = EpochClock()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[clock],
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        limit_val_batches=0,
        logger=pl.loggers.CSVLogger(tempfile.mkdtemp()),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Optimized(recognizer), datamodule=data)
    return clock.seconds[0], clock.seconds[1]


def bare(recognizer: Recognizer, batches: list[AudioBatch]) -> float:
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-3)
    recognizer.train()
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        losses = recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(batch.texts))
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(recognizer.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--speed-perturb", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = manifests(options.corpus, options.part)

    def data() -> Speech:
        return Speech(
            manifests=folder, train=[options.part], validate=[], max_duration=60.0, speed_perturb=options.speed_perturb
        )

    loading = data()
    loading.setup("fit")
    batches = list(loading.train_dataloader())
    seconds = sum(int(batch.lengths.sum()) for batch in batches) / 16_000
    bare(CompactCTC(), batches)
    rows = [(*through_lightning(CompactCTC(), data()), bare(CompactCTC(), batches)) for _ in range(options.repeats)]
    print(f"\n{hardware()}; {seconds:.0f} s of audio an epoch, CompactCTC, medians of {options.repeats}")
    print(f"bare loop on tensors in memory                       {statistics.median(row[2] for row in rows):6.2f} s")
    for index, epoch in enumerate(("first epoch, decoding", "second epoch, cached")):
        ratio = statistics.median(row[index] / row[2] for row in rows)
        ours = statistics.median(row[index] for row in rows)
        print(f"Lightning and data pipeline, {epoch:23} {ours:6.2f} s, ratio {ratio:.3f} (at most 1.10)")


if __name__ == "__main__":
    main()
