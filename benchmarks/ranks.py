"""Two processes against one on the same number of threads: seconds of an epoch of adversarial fine-tuning.

``python -m benchmarks.ranks [--corpus FOLDER] [--threads N] [--repeats R]``. One process uses batches of 30 s and all threads; two
processes use batches of 15 s and half the threads each. Both settings take turns. The first epoch decodes the audio and does not
count.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from benchmarks.corpus import arguments, hardware, manifests
from benchmarks.fitting import AdversarialStep, silent_trainer
from datamodules import Speech
from robust_asr.models.compact import CompactCTC

_SECONDS = 30.0


class EpochFile(pl.Callback):
    """Appends the seconds of each epoch to a file, by which a spawned process reports them to its parent."""

    def __init__(self, path: Path, *, num_threads: int) -> None:
        self.path, self.num_threads = path, num_threads

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.set_num_threads(self.num_threads)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(f"{time.perf_counter() - self._start}\n")


def epoch(folder: str, part: str, *, num_ranks: int, num_threads: int) -> float:
    """Train for two epochs and return the seconds of the second epoch."""
    path = Path(tempfile.mkdtemp()) / "seconds"
    strategy = DDPStrategy(process_group_backend="gloo", start_method="spawn") if num_ranks > 1 else "auto"
    trainer = silent_trainer(
        accelerator="cpu",
        devices=num_ranks,
        strategy=strategy,
        max_epochs=2,
        callbacks=[EpochFile(path, num_threads=num_threads // num_ranks)],
    )
    data = Speech(folder, train=[part], validate=[], max_duration=_SECONDS / num_ranks)
    trainer.fit(AdversarialStep(CompactCTC(), num_iterations=7), datamodule=data)
    return float(path.read_text().split()[1])


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(threads=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.threads < 2:
        parser.error("--threads must be at least 2, to be shared by two processes")
    folder = manifests(options.corpus, options.part)
    rows = []
    for _ in range(options.repeats):
        rows.append([epoch(folder, options.part, num_ranks=ranks, num_threads=options.threads) for ranks in (1, 2)])
    torch.set_num_threads(options.threads)
    print(f"\n{hardware()}; CompactCTC, PGD-7, medians of {len(rows)} epochs each, the two in turn")
    for name, column in zip(("one process", "two processes"), zip(*rows, strict=True), strict=True):
        print(f"{name:14} {statistics.median(column):7.2f} s")
    print(f"efficiency, one over two: {statistics.median(one / two for one, two in rows):.3f}")


if __name__ == "__main__":
    main()
