"""Conv-TasNet against torchaudio's, alone and in padded batches; checkpointing; sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.denoiser import torchaudios
from robust_asr.gradients import input_gradient
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from tests.command_line import ROOT, full_settings

TINY = {"num_filters": 12, "num_feats": 6, "num_hidden": 10, "num_layers": 5, "num_stacks": 2}
LENGTHS = (1000, 613, 9, 1)


def network(**settings: object) -> ConvTasNet:
    torch.manual_seed(0)
    built = ConvTasNet(**{**TINY, **settings})
    # Affine parameters and mask away from where they start, so that a test can see them.
    for parameter in built.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return built.double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    waveforms = 0.1 * torch.randn(len(LENGTHS), max(LENGTHS), generator=generator, dtype=torch.float64)
    lengths = torch.tensor(LENGTHS)
    return waveforms.masked_fill(torch.arange(max(LENGTHS)) >= lengths[:, None], 0), lengths


@pytest.mark.parametrize("mask", ["relu", "sigmoid"])
@pytest.mark.parametrize("row", range(len(LENGTHS)))
def test_one_utterance_is_torchaudios(row: int, mask: str) -> None:
    own = network(mask=mask)
    waveforms, lengths = batch()
    alone = waveforms[row : row + 1, : LENGTHS[row]]
    expected = torchaudios(own)(alone[:, None])[:, 0]
    torch.testing.assert_close(own(alone, lengths[row : row + 1]), expected, rtol=1e-12, atol=1e-14)


def test_neighbours_and_padding_change_nothing() -> None:
    own = network()
    waveforms, lengths = batch()
    together = own(waveforms, lengths)
    padded = torch.nn.functional.pad(waveforms, (0, 777))
    padded[0, 1000:] = torch.nan
    torch.testing.assert_close(own(padded, lengths)[:, :1000], together, rtol=1e-12, atol=1e-14)
    for row, length in enumerate(LENGTHS):
        alone = own(waveforms[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-12, atol=1e-14)
        assert not together[row, length:].any()


def test_torchaudios_reads_the_padding_and_ours_does_not_need_to() -> None:
    own = network()
    waveforms, _ = batch()
    other = torchaudios(own)
    alone, padded = other(waveforms[1:2, None, :613])[..., :613], other(waveforms[1:2, None])[..., :613]
    assert ((alone - padded).norm() > 1e-3 * alone.norm()).item()


def test_gradient_of_an_utterance_is_its_own() -> None:
    own = network()
    waveforms, lengths = batch()
    _, gradient = input_gradient(lambda values: own(values, lengths).square().sum(1), waveforms)
    for row, length in enumerate(LENGTHS):
        alone = (waveforms[row : row + 1, :length], lengths[row : row + 1])
        _, expected = input_gradient(lambda values, n=alone[1]: own(values, n).square().sum(1), alone[0])
        torch.testing.assert_close(gradient[row, :length], expected[0], rtol=1e-9, atol=1e-12)
        assert not gradient[row, length:].any()


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_gives_the_same_gradients_in_an_inner_loop(frozen: bool) -> None:
    waveforms, lengths = batch()
    found = []
    for checkpointing in (False, True):
        own = network().requires_grad_(not frozen)
        own.checkpointing = checkpointing
        values = waveforms
        for _ in range(2):
            with torch.no_grad():
                _, gradient = input_gradient(lambda values, own=own: own(values, lengths).square().sum(1), values)
            values = values + 1e-3 * gradient.sign()
        found.append([values])
        if not frozen:
            own(values, lengths).square().sum().backward()
            found[-1] += [parameter.grad for parameter in own.parameters()]
    assert all(torch.equal(plain, checkpointed) for plain, checkpointed in zip(*found, strict=True))


def test_checkpointing_keeps_less() -> None:
    kept = []
    for checkpointing in (False, True):
        own = network()
        own.checkpointing = checkpointing
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda value, s=saved: s.append(value.nbytes) or value, lambda value: value
        ):
            own(*batch()).sum()
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_half_precision_where_a_dilation_exceeds_the_frames(checkpointing: bool) -> None:
    own = network(num_layers=9).float()
    own.checkpointing = checkpointing
    waveforms, lengths = (values.float() if values.is_floating_point() else values for values in batch())
    assert own.blocks[-1].depthwise.dilation[0] > waveforms.shape[1] // own.filter_size * 2
    found = []
    for half in (False, True):
        leaf = waveforms.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            cleaned = own(leaf, lengths)
        assert cleaned.dtype == torch.float32
        found.append([cleaned, *torch.autograd.grad(cleaned.square().sum(), (leaf, *own.parameters()))])
    for exact, rounded in zip(*found, strict=True):
        assert exact.dtype == rounded.dtype
    for exact, rounded in list(zip(*found, strict=True))[:2]:
        assert ((exact - rounded).norm() < 0.1 * exact.norm()).item()


ONE_STACK = "denoiser.network={ConvTasNet: {num_layers: 16, num_stacks: 1}}"


@pytest.mark.parametrize(
    ("scale", "value", "millions"),
    [("librispeech", "chain=runs", 3.195), ("librispeech", ONE_STACK, 3.195), ("an4", "chain=runs", 0.0647)],
)
def test_denoisers_of_the_chain_have_their_sizes(scale: str, value: str, millions: float) -> None:
    recipe, scales = ROOT / "recipes" / "joshi2022" / "denoiser.yaml", ROOT / "configs" / "scale"
    settings = full_settings(recipe, f"--values={scales / scale}.yaml", f"--value={value}")
    settings = settings["model"]["init_args"]["denoiser"]["init_args"]["network"]
    with torch.device("meta"):
        built = trust.build({"init_args": {}, **settings}, expected=ConvTasNet)
    assert sum(parameter.numel() for parameter in built.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_description_builds_it_again() -> None:
    own = network()
    again = trust.build(describe(own), expected=ConvTasNet)
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in own.state_dict().items()
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_filters", 0), ("filter_size", 15), ("kernel_size", 2), ("num_layers", 31), ("mask", "softmax")],
)
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ConvTasNet(**{**TINY, field: value})


@pytest.mark.parametrize(("settings", "seconds"), [({}, 0.064), ({"num_layers": 16, "num_stacks": 1}, 16.384)])
def test_reach_of_a_single_layer(settings: dict[str, int], seconds: float) -> None:
    with torch.device("meta"):
        assert ConvTasNet(**settings).reach / 16_000 == seconds


@pytest.mark.parametrize("longer", [False, True])
def test_the_outermost_taps_get_a_gradient_from_audio_longer_than_the_reach(longer: bool) -> None:
    own = network(num_layers=6, num_stacks=1)
    outer = own.blocks[-1].depthwise
    samples = own.reach + (own.filter_size if longer else -own.filter_size)
    own(torch.randn(1, samples, dtype=torch.float64), torch.tensor([samples])).square().sum().backward()
    taps = torch.zeros(3) if outer.weight.grad is None else outer.weight.grad.abs().amax((0, 1))
    assert bool(taps[0] > 0) is bool(taps[2] > 0) is longer
