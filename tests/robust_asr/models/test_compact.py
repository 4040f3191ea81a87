import pytest
import torch

from robust_asr.models.compact import CompactCTC
from robust_asr.storage.describe import describe

SMALL = {"num_mels": 20, "stem_channels": 4, "width": 12, "num_blocks": 2, "kernel_size": 5, "gru_width": 6}
LENGTHS = torch.tensor([16_000, 9_000, 321, 12_345])
TEXTS = ["ONE TWO", "A", "", "YES"]


@pytest.fixture
def recognizer() -> CompactCTC:
    torch.manual_seed(0)
    return CompactCTC(**SMALL).eval()


def _waveforms(lengths: torch.Tensor, *, padding: float = 0.0) -> torch.Tensor:
    waveforms = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(waveforms.shape[1])
    return waveforms.masked_fill(positions >= lengths[:, None], padding)


def test_the_default_has_half_a_million_parameters():
    assert 450_000 < sum(parameter.numel() for parameter in CompactCTC().parameters()) < 600_000


def test_every_argument_is_described(recognizer: CompactCTC):
    assert describe(recognizer)["init_args"] == {"tokenizer": describe(recognizer.tokenizer), **_defaults(), **SMALL}


def _defaults() -> dict:
    description = describe(CompactCTC())["init_args"]
    return {name: value for name, value in description.items() if name != "tokenizer"}


@pytest.mark.parametrize("length", [0, 1, 159, 160, 320, 479, 480, 1_600, 16_001])
def test_num_frames_is_what_encode_returns(recognizer: CompactCTC, length: int):
    hidden, frame_lengths = recognizer.encode(torch.zeros(1, length), torch.tensor([length]))
    assert hidden.shape[1] == frame_lengths.item() == recognizer.num_frames(torch.tensor([length])).item()
    assert abs(frame_lengths.item() * recognizer.frame_shift - length / 16_000) <= recognizer.frame_shift


def test_alone_equals_padded_whatever_the_padding_holds(recognizer: CompactCTC):
    targets = recognizer.targets(TEXTS)
    together = recognizer.loss(_waveforms(LENGTHS, padding=torch.nan), LENGTHS, targets)
    waveforms = _waveforms(LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        index = torch.tensor([row])
        alone = recognizer.loss(waveforms[index, :length], LENGTHS[index], targets.select(index))
        torch.testing.assert_close(together[index], alone, atol=1e-4, rtol=0)


def test_training_does_not_see_the_padding_either():
    losses = []
    for extra in (0, 5_000):
        torch.manual_seed(0)
        recognizer = CompactCTC(**SMALL, dropout=0.0, num_freq_masks=0, num_time_masks=0)
        waveforms = torch.nn.functional.pad(_waveforms(LENGTHS), (0, extra), value=3.0)
        losses.append(recognizer.loss(waveforms, LENGTHS, recognizer.targets(TEXTS)))
        losses.append(recognizer.stem.second_norm.running_var)
    torch.testing.assert_close(losses[:2], losses[2:], atol=1e-4, rtol=1e-5)


def test_the_gradient_equals_finite_differences(recognizer: CompactCTC):
    recognizer.double()
    waveforms, lengths, targets = _waveforms(LENGTHS[:2]).double(), LENGTHS[:2], recognizer.targets(TEXTS[:2])
    waveforms.requires_grad_(True)
    (gradient,) = torch.autograd.grad(recognizer.loss(waveforms, lengths, targets).sum(), waveforms)
    assert not gradient[1, 9_000:].any()
    direction = torch.randn(waveforms.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-6 * direction
    with torch.no_grad():
        ahead = recognizer.loss(waveforms + step, lengths, targets).sum()
        behind = recognizer.loss(waveforms - step, lengths, targets).sum()
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-4)


def test_mixed_precision_trains(recognizer: CompactCTC):
    recognizer.train()
    targets = recognizer.targets(TEXTS)
    torch.manual_seed(0)
    expected = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    losses.sum().backward()
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0.5)
    assert all(parameter.grad.isfinite().all() for parameter in recognizer.parameters())


@pytest.mark.parametrize("length", [0, 320, 8_000])
def test_silence_has_a_finite_loss_and_gradient(recognizer: CompactCTC, length: int):
    waveforms = torch.zeros(1, length, requires_grad=True)
    loss = recognizer.loss(waveforms, torch.tensor([length]), recognizer.targets([""]))
    (gradient,) = torch.autograd.grad(loss.sum(), waveforms)
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_text_longer_than_the_frames_is_infeasible(recognizer: CompactCTC):
    lengths, targets = torch.tensor([320, 16_000]), recognizer.targets(["SEVEN", "SEVEN"])
    assert recognizer.feasible(lengths, targets).tolist() == [False, True]
    losses = recognizer.loss(torch.zeros(2, 16_000), lengths, targets)
    assert losses.isinf().tolist() == [True, False]


def test_augmentation_and_dropout_act_in_training_only(recognizer: CompactCTC):
    waveforms, targets = _waveforms(LENGTHS), recognizer.targets(TEXTS)
    assert torch.equal(recognizer.loss(waveforms, LENGTHS, targets), recognizer.loss(waveforms, LENGTHS, targets))
    recognizer.train()
    recognizer.output_dropout.eval()
    for block in recognizer.blocks:
        block.dropout.eval()
    first, second = (recognizer.loss(waveforms, LENGTHS, targets) for _ in range(2))
    assert not torch.allclose(first, second)


def test_it_learns_to_write_what_it_hears():
    torch.manual_seed(0)
    small = {**SMALL, "width": 24, "gru_width": 16, "num_blocks": 1}
    recognizer = CompactCTC(**small, dropout=0.0, num_freq_masks=0, num_time_masks=0)
    pitches = torch.tensor([[400.0, 1_500.0], [1_500.0, 400.0]])
    tones = torch.sin(2 * torch.pi * pitches[:, :, None] * torch.arange(3_200) / 16_000)
    waveforms, lengths = 0.1 * tones.flatten(1), torch.full((2,), 6_400)
    targets = recognizer.targets(["AB", "BA"])
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        recognizer.loss(waveforms, lengths, targets).mean().backward()
        optimizer.step()
    labels = recognizer.eval().emissions(waveforms, lengths).log_probs.argmax(-1)
    assert [recognizer.tokenizer.decode(torch.unique_consecutive(row).tolist()) for row in labels] == ["AB", "BA"]


@pytest.mark.parametrize(
    "arguments", [{"kernel_size": 4}, {"width": 0}, {"num_blocks": -1}, {"dropout": 1.0}, {"dropout": float("nan")}]
)
def test_arguments_out_of_range_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CompactCTC(**arguments)
