"""Peak memory of a step of joint training against the length of the utterance, with activation checkpointing and without.

``python -m benchmarks.memory [--seconds 1 2 4 8 16]``. The step trains JO22's denoiser and CompactCTC on one utterance, with one
inner iteration (more iterations need no more memory). Every step runs in a process of its own, after a first step on 0.2 s of
audio. The reported memory is the peak above the resident memory after that first step: it contains the activations, but not the
weights, the optimiser's moments and the libraries.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from benchmarks.corpus import hardware
from lightning_modules.joint import JointDenoiserASR
from robust_asr.attacks.pgd import PaperPGD
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
            # Writing 5 resets the kernel's record of this process's peak memory.
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
    """A field of this process's status: ``VmRSS``, its present memory, or ``VmHWM``, its peak memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--without-up-to", type=float, default=4, help="longest utterance to try without checkpointing")
    options = parser.parse_args()
    # One thread, because forking a process that has started threads could hang.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{hardware()}; JO22's denoiser and CompactCTC, one utterance, peak of a step above the start")
    for seconds in options.seconds:
        peaks = {}
        for checkpointing in (True, False) if seconds <= options.without_up_to else (True,):
            tandem = Defended(Denoise(ConvTasNet()), CompactCTC())
            attack = PaperPGD(LinfRange(1e-4, 0.02), num_iterations=1)
            peaks[checkpointing] = peak(JointDenoiserASR(tandem, attack=attack, checkpointing=checkpointing), seconds)
        plain = "not run" if False not in peaks else f"{peaks[False][0]:.2f} GiB, {peaks[False][1]:.0f} s"
        ratio = "" if False not in peaks else f", ratio {peaks[True][0] / peaks[False][0]:.2f}"
        print(
            f"{seconds:5g} s: {peaks[True][0]:.2f} GiB, {peaks[True][1]:.0f} s with checkpointing; without {plain}{ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
