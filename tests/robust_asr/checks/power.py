"""What the live check of writing sees of planted faults and of honest systems: numbers of robust_asr/checks/README.md.

``python -m tests.robust_asr.checks.power MANIFESTS PART RUN...``: three batches of three utterances of each run's recogniser.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torchaudio
from torch import Tensor

from datamodules.speech import Speech
from robust_asr import checkpoint
from robust_asr.checks.live.writing import check_writing
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.types import AudioBatch
from tests.robust_asr.checks.faults import Muffled, MuffledLoss

BATCHES, UTTERANCES = 3, 3


class LowPassed(Muffled):
    """Writes what it hears behind a second-order low-pass of 4 kHz."""

    def muffled(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        return torchaudio.functional.lowpass_biquad(waveforms, 16_000, 4000.0)


SYSTEMS: dict[str, Callable[[Recognizer], Recognizer]] = {
    "honest": lambda recognizer: recognizer,
    "transcript of audio at 8 kHz": lambda recognizer: Muffled(recognizer, 0.5),
    "loss of audio at 8 kHz": lambda recognizer: MuffledLoss(recognizer, 0.5),
    "transcript behind a low-pass": LowPassed,
}


def batches(manifests: str, part: str) -> list[AudioBatch]:
    """The shortest utterances of each batch, as an evaluation checks them."""
    data = Speech(manifests, test=[part], max_duration=40.0, evaluation_batching="similar", eval_utterances=60)
    data.setup("test")
    found = list(data.test_dataloader()[0])[:BATCHES]
    return [batch.select(batch.lengths.argsort(stable=True)[:UTTERANCES]) for batch in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests")
    parser.add_argument("part")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = batches(options.manifests, options.part)
    recognizers = [checkpoint.load(f"{run}/checkpoints/last.ckpt").eval() for run in options.runs]
    for name, planted in SYSTEMS.items():
        found = []
        for recognizer in map(planted, recognizers):
            with frozen_for_attack(recognizer):
                found += [
                    check_writing(recognizer, one, one.texts, seeds=utterance_seeds(0, one.ids)) for one in chosen
                ]
        values = sorted(float(check.value) for check in found if check.value != "")
        red = sum(check.verdict == "fail" for check in found)
        print(f"{name}: red {red} of {len(found)}, {values[0]:.3g} to {values[-1]:.3g} nats", flush=True)


if __name__ == "__main__":
    main()
