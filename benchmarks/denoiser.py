"""The denoiser beside torchaudio's Conv-TasNet: the pass of an attack step, there and back to the gradient of the waveform.

``python -m benchmarks.denoiser [--repeats N]``. Both have the same weights and hear the same audio, in which nothing is padded;
they take turns in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchaudio
import yaml
from torch import Tensor

from benchmarks.corpus import hardware
from benchmarks.turns import median_ratio, print_seconds, seconds_of
from robust_asr.models.conv_tasnet import ConvTasNet

SCALES = Path(__file__).resolve().parents[1] / "configs" / "scale"
# Scale, utterances, seconds each.
SIZES = (("an4", 4, 3), ("librispeech", 1, 2))


def network(scale: str) -> dict[str, Any]:
    """The constructor arguments of the denoiser of JO22's chain at a scale."""
    return yaml.safe_load((SCALES / f"{scale}.yaml").read_text())["denoiser"]["network"]["ConvTasNet"]


def torchaudios(own: ConvTasNet) -> torchaudio.models.ConvTasNet:
    """torchaudio's network of the same architecture and weights."""
    other = torchaudio.models.ConvTasNet(
        num_sources=1,
        enc_kernel_size=own.filter_size,
        enc_num_feats=own.num_filters,
        msk_kernel_size=own.kernel_size,
        msk_num_feats=own.num_feats,
        msk_num_hidden_feats=own.num_hidden,
        msk_num_layers=own.num_layers,
        msk_num_stacks=own.num_stacks,
        msk_activate=own.mask,
    ).to(next(own.parameters()).dtype)
    for source, target in zip(own.parameters(), other.parameters(), strict=True):
        target.data.copy_(source.data)
    return other


def attack_pass(denoise: Callable[[Tensor], Tensor], waveforms: Tensor) -> Callable[[], None]:
    def both_passes() -> None:
        leaf = waveforms.clone().requires_grad_()
        torch.autograd.grad(denoise(leaf).square().sum(), leaf)

    return both_passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    # CPU seconds add up over threads.
    torch.set_num_threads(1)
    print(f"{hardware()}; medians of {repeats}, CPU seconds")
    for name, batch, seconds in SIZES:
        torch.manual_seed(0)
        ours = ConvTasNet(**network(name))
        waveforms = 0.1 * torch.randn(batch, seconds * 16_000)
        lengths, theirs = torch.full((batch,), waveforms.shape[1]), torchaudios(ours)
        found = seconds_of(
            {
                "ours": attack_pass(lambda leaf, ours=ours, lengths=lengths: ours(leaf, lengths), waveforms),
                "theirs": attack_pass(lambda leaf, theirs=theirs: theirs(leaf[:, None]), waveforms),
            },
            repeats=repeats,
        )
        parameters = sum(parameter.numel() for parameter in ours.parameters())
        print(f"{name}: {parameters:,} parameters, {batch} x {seconds} s")
        print_seconds(found)
        print(f"ours over theirs: {median_ratio(found, 'ours', 'theirs'):.3f}")


if __name__ == "__main__":
    main()
