from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.models.conformer import ConformerCTC, ConformerEncoder
from robust_asr.models.convolution_module import ConvolutionModule
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.models.subsampling import StridedSubsampling, VggSubsampling
from robust_asr.storage import trust
from robust_asr.storage.describe import describe

SMALL = {"num_mels": 20, "subsampling_channels": 4, "width": 12, "num_layers": 2, "num_heads": 2}
SMALL |= {"feed_forward_width": 24, "kernel_size": 7}
LENGTHS = torch.tensor([16_000, 9_000, 321, 12_345])
TEXTS = ["ONE TWO", "A", "", "YES"]


def _encoder(**options: object) -> ConformerEncoder:
    torch.manual_seed(0)
    return ConformerEncoder(**{**SMALL, **options})


def _waveforms(lengths: Tensor, *, padding: float = 0.0) -> Tensor:
    waveforms = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=torch.Generator().manual_seed(1))
    return waveforms.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], padding)


def _with_statistics(encoder: ConformerEncoder) -> ConformerEncoder:
    """In evaluation mode, with running statistics that are not those of a fresh model."""
    for _ in range(3):
        encoder.train()(_waveforms(LENGTHS), LENGTHS)
    return encoder.eval()


@pytest.mark.parametrize("options", [{}, {"subsampling": "strided"}], ids=["vgg", "strided"])
def test_neither_padding_nor_neighbours_are_heard(options: dict):
    encoder = _with_statistics(_encoder(**options))
    together, frame_lengths = encoder(functional.pad(_waveforms(LENGTHS, padding=torch.nan), (0, 3_333)), LENGTHS)
    assert torch.equal(frame_lengths, encoder.num_frames(LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = encoder(_waveforms(LENGTHS)[row : row + 1, :length], LENGTHS[row : row + 1])
        num_frames = int(frame_lengths[row])
        assert alone.shape[1] == num_frames
        torch.testing.assert_close(together[row, :num_frames], alone[0], rtol=0, atol=1e-5)
        assert not together[row, num_frames:].any()


@pytest.mark.parametrize("options", [{}, {"subsampling": "strided"}], ids=["vgg", "strided"])
def test_training_does_not_hear_the_padding_either(options: dict):
    results = []
    for extra in (0, 5_000):
        encoder = _encoder(dropout=0.0, **options).train()
        hidden, frame_lengths = encoder(functional.pad(_waveforms(LENGTHS), (0, extra), value=3.0), LENGTHS)
        hidden.square().sum().backward()
        gradient = encoder.blocks[0].convolution.depthwise.weight.grad
        results.append((hidden[:, : int(frame_lengths.max())], encoder.feature_norm.running_var, gradient))
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 79, 80, 559, 560, 880, 16_001])
def test_num_frames_is_what_encode_returns(length: int):
    recognizer = ConformerCTC(_encoder()).eval()
    lengths = torch.tensor([length])
    hidden, frame_lengths = recognizer.encode(torch.zeros(1, length), lengths)
    assert hidden.shape[1] == frame_lengths.item() == recognizer.num_frames(lengths).item()
    assert abs(frame_lengths.item() * recognizer.frame_shift - length / 16_000) <= 0.04


@pytest.mark.parametrize("kind", [VggSubsampling, StridedSubsampling])
def test_subsampling_of_a_whole_batch_is_that_of_plain_layers(kind: type):
    torch.manual_seed(0)
    module = kind(10, channels=4, width=6)
    features = torch.randn(2, 17, 10)
    found, step_lengths = module(features, torch.tensor([17, 17]))
    values = features[:, None]
    for index, conv in enumerate(module.convs):
        values = conv(values).relu()
        if kind is VggSubsampling and index % 2:
            values = functional.max_pool2d(values, 2, ceil_mode=True)
    torch.testing.assert_close(found, module.project(values.transpose(1, 2).flatten(2)))
    assert step_lengths.tolist() == [found.shape[1]] * 2 == [5, 5]


def test_convolution_of_a_padded_batch_is_that_of_each_alone():
    torch.manual_seed(0)
    module = ConvolutionModule(6, kernel_size=5).eval()
    values, frame_lengths = torch.randn(3, 12, 6), torch.tensor([12, 7, 1])
    together = module(values, frame_lengths)
    for row, length in enumerate(frame_lengths.tolist()):
        alone = module(values[row : row + 1, :length], frame_lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0])


def test_the_sizes_of_the_papers():
    with torch.device("meta"):
        joshi = ConformerEncoder()
        yang = ConformerEncoder(subsampling="strided", subsampling_channels=256, num_layers=16, feed_forward_width=1024)
    counts = [sum(parameter.numel() for parameter in encoder.parameters()) / 1e6 for encoder in (joshi, yang)]
    assert counts == pytest.approx([32.07, 27.32], abs=0.01)


def test_built_again_from_its_description():
    recognizer = ConformerCTC(_encoder(spec_augment=SpecAugment(time_width=0.2))).eval()
    description = describe(recognizer)
    with torch.device("meta"):
        trust.build(description, expected=ConformerCTC)
    rebuilt = trust.build(description, expected=ConformerCTC).eval()
    assert describe(rebuilt) == description
    rebuilt.load_state_dict(recognizer.state_dict())
    targets = recognizer.targets(TEXTS)
    losses = [model.loss(_waveforms(LENGTHS), LENGTHS, targets) for model in (recognizer, rebuilt)]
    assert torch.equal(*losses)


def test_masks_are_for_training_only():
    encoder = _with_statistics(_encoder(spec_augment=SpecAugment(num_time_masks=2, time_width=0.5)))
    first, again = (encoder(_waveforms(LENGTHS), LENGTHS)[0] for _ in range(2))
    assert torch.equal(first, again)
    encoder.train()
    first, again = (encoder(_waveforms(LENGTHS), LENGTHS)[0] for _ in range(2))
    assert not torch.equal(first, again)


def test_mixed_precision_is_near():
    recognizer = ConformerCTC(_encoder().eval())
    targets = recognizer.targets(TEXTS)
    exact = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"subsampling": "none"},
        {"kernel_size": 4},
        {"num_heads": 5},
        {"dropout": 1.0},
        {"num_layers": -1},
    ],
)
def test_a_value_out_of_range_is_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _encoder(**wrong)
