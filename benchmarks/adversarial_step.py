"""The overhead of adversarial training: a step with K inner iterations, over the time of K input gradients and a clean step.

``python -m benchmarks.adversarial_step [--corpus FOLDER] [--iterations K] [--steps N]``. A step is timed in Lightning, from the
batch to the updated weights. After every step, the baseline runs on the same batch: K plain forward and backward passes to the
waveform of a frozen model, and a plain training step. Times are CPU seconds of this process, or seconds of the GPU.
"""

from __future__ import annotations

import copy
import statistics
import time
from functools import partial

import pytorch_lightning as pl
import torch

from benchmarks.corpus import arguments, hardware, manifests
from benchmarks.fitting import AdversarialStep, silent_trainer
from datamodules import Speech
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.types import AudioBatch


def seconds() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Beside(pl.Callback):
    """Times every step, and its baseline on a copy of the model. ``rows``: (our step, K gradients, clean step) for each step."""

    def __init__(self, recognizer: Recognizer, *, num_iterations: int) -> None:
        self.recognizer, self.num_iterations = recognizer, num_iterations
        self.rows: list[tuple[float, float, float]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recognizer = self.recognizer.to(pl_module.device).train()
        self._optimizer = torch.optim.AdamW(self.recognizer.parameters(), lr=1e-4)
        self._autocast = partial(trainer.precision_plugin.forward_context)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: AudioBatch, batch_idx: int
    ) -> None:
        self._start = seconds()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: AudioBatch, batch_idx: int
    ) -> None:
        ours = seconds() - self._start
        start = seconds()
        targets = self.recognizer.targets(batch.texts)
        with frozen_for_attack(self.recognizer), self._autocast():
            for _ in range(self.num_iterations):
                input_gradient(
                    lambda waveforms: self.recognizer.loss(waveforms, batch.lengths, targets), batch.waveforms
                )
        middle = seconds()
        self._optimizer.zero_grad()
        with self._autocast():
            loss = self.recognizer.loss(batch.waveforms, batch.lengths, targets).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.recognizer.parameters(), 1.0)
        self._optimizer.step()
        self.rows.append((ours, middle - start, seconds() - middle))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--iterations", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = "bf16-mixed" if torch.cuda.is_available() else "32-true"
    data = Speech(manifests(options.corpus, options.part), train=[options.part], validate=[], max_duration=30.0)
    recognizer = CompactCTC()
    beside = Beside(copy.deepcopy(recognizer), num_iterations=options.iterations)
    trainer = silent_trainer(
        accelerator="auto",
        devices=1,
        max_steps=options.steps + 2,
        max_epochs=-1,
        precision=precision,
        callbacks=[beside],
    )
    training = AdversarialStep(recognizer, num_iterations=options.iterations, precision=precision)
    trainer.fit(training, datamodule=data)
    rows = beside.rows[2:]
    ours, gradients, clean = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = sorted(row[0] / (row[1] + row[2]) for row in rows)
    print(
        f"\n{hardware()}, {precision}; CompactCTC, batches of 30 s, K = {options.iterations}, medians of {len(rows)} steps"
    )
    print(f"K forward and input gradients           {gradients:7.3f} s")
    print(f"training step on clean audio            {clean:7.3f} s")
    print(f"adversarial training step               {ours:7.3f} s")
    quarter = len(ratios) // 4
    print(
        f"ratio {statistics.median(ratios):.3f}, quartiles {ratios[quarter]:.3f} and {ratios[-1 - quarter]:.3f} (at most 1.10); "
        f"over a clean step {statistics.median(row[0] / row[2] for row in rows):.2f}"
    )


if __name__ == "__main__":
    main()
