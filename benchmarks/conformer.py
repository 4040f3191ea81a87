"""A training step of the Conformer of Joshi et al. 2022, beside torchaudio's Conformer, and the share of lattice-free MMI in it.

``python -m benchmarks.conformer [--batch N] [--seconds S] [--repeats N]``. Five contenders take turns in one process: our training
step, the same step with torchaudio's blocks of the same size, our blocks alone, torchaudio's blocks alone, and the loss alone
with its targets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchaudio.models import Conformer

from benchmarks.corpus import hardware
from benchmarks.turns import median_ratio, print_seconds, seconds_of
from robust_asr.lfmmi.loss import lfmmi_loss
from robust_asr.masking import length_mask
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.models.relative_attention import relative_positions

# At the reading speed of LibriSpeech this text takes about six seconds.
TEXT = "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL"


class OurBlocks(nn.Module):
    def __init__(self, encoder: ConformerEncoder) -> None:
        super().__init__()
        self.blocks = encoder.blocks

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        distances = relative_positions(values.shape[1], values.shape[2], like=values)
        mask = length_mask(lengths, values.shape[1])
        for block in self.blocks:
            values = block(values, distances, lengths, mask)
        return values, lengths


class TorchaudioEncoder(ConformerEncoder):
    """Our front end and subsampling, torchaudio's blocks."""

    def __init__(self) -> None:
        sizes = ConformerEncoder()
        super().__init__(num_layers=0)
        self.theirs = Conformer(
            input_dim=sizes.width,
            num_heads=sizes.num_heads,
            ffn_dim=sizes.feed_forward_width,
            num_layers=sizes.num_layers,
            depthwise_conv_kernel_size=sizes.kernel_size,
            dropout=sizes.dropout,
        )

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.theirs(*super().forward(waveforms, lengths))


def training_step(
    recognizer: ConformerLFMMI, waveforms: Tensor, lengths: Tensor, texts: list[str]
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        recognizer.loss(waveforms, lengths, recognizer.targets(texts)).mean().backward()
        nn.utils.clip_grad_value_(recognizer.parameters(), 5.0)
        optimizer.step()

    return step


def blocks_alone(blocks: nn.Module, values: Tensor, lengths: Tensor) -> Callable[[], None]:
    """A forward and backward pass through the blocks only."""

    def both_passes() -> None:
        blocks(values, lengths)[0].square().mean().backward()

    return both_passes


def loss_alone(recognizer: ConformerLFMMI, lengths: Tensor, texts: list[str]) -> Callable[[], None]:
    frame_lengths = recognizer.num_frames(lengths)
    scores = torch.randn(len(lengths), int(frame_lengths.max()), recognizer.lexicon.size)
    log_probs = scores.log_softmax(-1).requires_grad_()

    def loss() -> None:
        graphs = recognizer.targets(texts)
        lfmmi_loss(log_probs, frame_lengths, graphs, recognizer.log_bigram).mean().backward()

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    # One thread, because CPU seconds add up over threads.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    waveforms = 0.1 * torch.randn(options.batch, options.seconds * 16_000)
    lengths = torch.full((options.batch,), options.seconds * 16_000)
    texts = [" ".join([TEXT] * max(options.seconds // 6, 1))] * options.batch
    ours, theirs = ConformerLFMMI(ConformerEncoder()), ConformerLFMMI(TorchaudioEncoder())
    for recognizer in (ours, theirs):
        recognizer.estimate_language(texts)
    num_steps = ours.num_frames(lengths)
    values = torch.randn(options.batch, int(num_steps[0]), ours.encoder.width, requires_grad=True)
    seconds = seconds_of(
        {
            "ours": training_step(ours, waveforms, lengths, texts),
            "theirs": training_step(theirs, waveforms, lengths, texts),
            "our blocks": blocks_alone(OurBlocks(ours.encoder), values, num_steps),
            "their blocks": blocks_alone(theirs.encoder.theirs, values, num_steps),
            "loss": loss_alone(ours, lengths, texts),
        },
        repeats=options.repeats,
    )
    millions = [sum(parameter.numel() for parameter in model.parameters()) / 1e6 for model in (ours, theirs)]
    print(f"{hardware()}; {options.batch} x {options.seconds} s, medians of {options.repeats}, CPU seconds")
    print(f"parameters: ours {millions[0]:.1f} M, torchaudio's blocks {millions[1]:.1f} M")
    print_seconds(seconds)
    for top, bottom, limit in (
        ("ours", "theirs", "at most 1.2"),
        ("our blocks", "their blocks", "no limit set"),
        ("loss", "ours", "at most 0.25"),
    ):
        print(f"{top} over {bottom}: {median_ratio(seconds, top, bottom):.3f} ({limit})")


if __name__ == "__main__":
    main()
