"""Peak memory of a step of joint training against the length of the utterance, with activation checkpointing and without.

``python -m benchmarks.memory [--seconds 1 2 4 8 16]``. One utterance, JO22's denoiser in front of CompactCTC, both
learning, one inner iteration (more take no more memory). Every step runs in a process of its own, after a step of 0.2 s: the
peak of its resident memory over what it had then, so activations, but not weights, their moments and libraries.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from benchmarks.corpus import hardware
from lightning_modules.joint import JointDenoiserASR
from robust_asr.attacks.pgd import PGD
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.threat.ranges import LinfRange
from robust_asr.types import AudioBatch


def step(training: JointDenoiserASR, seconds: float) -> None:
    num_samples = int(seconds * 16_000)
    waveforms = 0.1 * torch.randn(1, num_samples).clamp(-3, 3)
    batch = AudioBatch(waveforms, torch.tensor([num_samples]), ("A",), ("one",))
    recognizer = training.recognizer.train()
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-5)
    batch = training.perturb(batch)
    recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(batch.texts)).mean().backward()
    optimizer.step()


def peak(training: JointDenoiserASR, seconds: float) -> tuple[float, float]:
    """GiB and seconds of a step, in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            step(training, 0.2)
            # The peak so far is forgotten.
            Path("/proc/self/clear_refs").write_text("5")
            before, start = kibibytes("VmRSS"), time.process_time()
            step(training, seconds)
            most = kibibytes("VmHWM")
            os.write(writing, f"{(most - before) / 2**20} {time.process_time() - start}".encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reading) as answer:
        text = answer.read()
    if status:
        raise RuntimeError(f"a step of {seconds:g} s ended with {status}; with signal 9 there was not enough memory")
    gib, duration = map(float, text.split())
    return gib, duration


def kibibytes(field: str) -> int:
    """Of this process: ``VmRSS``, its memory now, or ``VmHWM``, the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--without-up-to", type=float, default=4, help="longest utterance to try without checkpointing")
    options = parser.parse_args()
    # The parent computes nothing: a fork of a process with threads could hang.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{hardware()}; JO22's denoiser and CompactCTC, one utterance, peak of a step above the start")
    for seconds in options.seconds:
        found = {}
        for checkpointing in (True, False) if seconds <= options.without_up_to else (True,):
            tandem = Defended(Denoise(ConvTasNet()), CompactCTC())
            attack = PGD(LinfRange(1e-4, 0.02), num_iterations=1)
            found[checkpointing] = peak(JointDenoiserASR(tandem, attack=attack, checkpointing=checkpointing), seconds)
        plain = "not run" if False not in found else f"{found[False][0]:.2f} GiB, {found[False][1]:.0f} s"
        ratio = "" if False not in found else f", ratio {found[True][0] / found[False][0]:.2f}"
        print(
            f"{seconds:5g} s: {found[True][0]:.2f} GiB, {found[True][1]:.0f} s with checkpointing; without {plain}{ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
