from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.models.base import Recognizer
from robust_asr.models.deepspeech2 import DeepSpeech2, LogSpectrogram, SummedBiLSTM
from robust_asr.storage import trust
from robust_asr.text import CharacterTokenizer
from tests.command_line import ROOT, full_settings
from tests.robust_asr.test_contract import LENGTHS, TEXTS, audio


@pytest.fixture
def recognizer() -> DeepSpeech2:
    """A small one whose running statistics are not those of a fresh model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer = DeepSpeech2(conv_channels=3, rnn_hidden=10, rnn_layers=3)
        for parameter in recognizer.parameters():
            nn.init.normal_(parameter, std=0.1)
        recognizer.train().emissions(audio(LENGTHS), LENGTHS)
    return recognizer.eval()


def plain(recognizer: DeepSpeech2, waveform: Tensor) -> Tensor:
    """DeepSpeech2 for one utterance and one utterance only, in the order of the paper. Shape: (T,) -> (F, V)."""
    state = recognizer.state_dict()

    def normalized(values: Tensor, name: str) -> Tensor:
        column = (-1,) + (1,) * (values.dim() - 2)
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        values = (values - mean.reshape(column)) / (variance.reshape(column) + 1e-5).sqrt()
        return values * state[f"{name}.weight"].reshape(column) + state[f"{name}.bias"].reshape(column)

    frames = functional.pad(waveform, (160, 160)).unfold(0, 320, 160) * torch.hamming_window(320)
    spectrogram = torch.log(1 + torch.fft.rfft(frames).abs()).T
    assert spectrogram.shape[0] == 161
    values = ((spectrogram - spectrogram.mean()) / spectrogram.std())[None, None]
    for layer, (stride, padding) in enumerate([((2, 2), (20, 5)), ((2, 1), (10, 5))]):
        conv = (state[f"convs.{layer}.conv.weight"], state[f"convs.{layer}.conv.bias"])
        values = normalized(functional.conv2d(values, *conv, stride, padding), f"convs.{layer}.norm").clamp(0, 20)
    values = values[0].reshape(-1, values.shape[-1]).T
    for layer in range(recognizer.rnn_layers):
        lstm = nn.LSTM(values.shape[-1], recognizer.rnn_hidden, bidirectional=True)
        prefix = f"rnns.{layer}.lstm."
        lstm.load_state_dict(
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )
        forward, backward = lstm(values)[0].chunk(2, -1)
        values = normalized((forward + backward).T[None], f"norms.{layer}")[0].T
    return (values @ state["head.weight"].T).log_softmax(-1)


def test_equals_a_plain_implementation(recognizer: DeepSpeech2) -> None:
    emissions = recognizer.emissions(audio(LENGTHS), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = plain(recognizer, audio(LENGTHS)[row, :length])
        assert int(emissions.frame_lengths[row]) == len(expected)
        torch.testing.assert_close(emissions.log_probs[row, : len(expected)], expected, rtol=0, atol=1e-5)


def test_spectrogram_is_normalised_over_its_own_cells() -> None:
    features, frame_lengths = LogSpectrogram()(audio(LENGTHS, size=9000), LENGTHS)
    for row, length in enumerate(frame_lengths.tolist()):
        cells = features[row, :, :length].double()
        assert cells.shape == (161, LENGTHS[row] // 160 + 1) and not features[row, :, length:].any()
        assert (float(cells.mean()), float(cells.var())) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        recognizer = DeepSpeech2()
    convolutions = (32 * 41 * 11 + 32) + (32 * 32 * 21 * 11 + 32)
    lstms = 2 * 4 * 1024 * ((1312 + 1024 + 2) + 4 * (1024 + 1024 + 2))
    norms = 2 * (32 + 32 + 4 * 1024 + 1024)
    head = 1024 * 29
    assert (
        sum(parameter.numel() for parameter in recognizer.parameters())
        == convolutions + lstms + norms + head
        == 86_618_400
    )


@pytest.mark.parametrize(("recipe", "millions"), [("olivier2021/deepspeech2", 86.6), ("an4/architectures", 3.3)])
def test_recipes_have_their_sizes(recipe: str, millions: float) -> None:
    description = full_settings(ROOT / "recipes" / f"{recipe}.yaml")["model"]["init_args"]["recognizer"]
    with torch.device("meta"):
        recognizer = trust.build(description, expected=Recognizer, field="recognizer")
    assert sum(parameter.numel() for parameter in recognizer.parameters()) == pytest.approx(millions * 1e6, rel=0.01)
    assert recognizer.tokenizer.size == 29


def test_frames_are_counted_as_they_come(recognizer: DeepSpeech2) -> None:
    for length in [1, 159, 160, 161, 319, 320, 321, 480, 640, 641, 2000]:
        lengths = torch.tensor([length])
        emissions = recognizer.emissions(audio(lengths), lengths)
        assert emissions.log_probs.shape[1] == int(emissions.frame_lengths) == int(recognizer.num_frames(lengths))


def test_packed_and_turned_are_one_function() -> None:
    torch.manual_seed(0)
    layer = SummedBiLSTM(5, 4)
    frame_lengths = torch.tensor([3, 7, 1])
    values = torch.randn(7, 3, 5, requires_grad=True)
    valid = torch.arange(7)[:, None, None] < frame_lengths[:, None]
    results = [path(values, frame_lengths).masked_fill(~valid, 0) for path in (layer._packed, layer._turned)]
    torch.testing.assert_close(*results)
    sources = [values, *layer.parameters()]
    for first, second in zip(*(torch.autograd.grad(result.sin().sum(), sources) for result in results), strict=True):
        torch.testing.assert_close(first, second)


def test_statistics_of_training_do_not_see_the_padding(recognizer: DeepSpeech2) -> None:
    recognizer.train()
    losses, statistics = [], []
    start = {key: value.clone() for key, value in recognizer.state_dict().items()}
    for size in (8000, 15_000):
        recognizer.load_state_dict(start)
        losses.append(recognizer.loss(audio(LENGTHS, size=size), LENGTHS, recognizer.targets(TEXTS)))
        statistics.append({key: value.clone() for key, value in recognizer.named_buffers() if "running" in key})
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(statistics[0], statistics[1])
    assert any(not torch.equal(value, start[key]) for key, value in statistics[0].items())


def test_bfloat16_autocast(recognizer: DeepSpeech2) -> None:
    exact = recognizer.loss(audio(LENGTHS), LENGTHS, recognizer.targets(TEXTS))
    for mode in (recognizer.eval(), recognizer.train()):
        waveforms = audio(LENGTHS).requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert mode.encode(waveforms, LENGTHS)[0].dtype == torch.bfloat16, "or nothing is tested"
            losses = mode.loss(waveforms, LENGTHS, mode.targets(TEXTS))
        (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
        assert losses.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
        if not mode.training:
            torch.testing.assert_close(losses, exact, rtol=0.05, atol=0)


@pytest.mark.parametrize("argument", ["conv_channels", "rnn_hidden", "rnn_layers"])
def test_sizes_are_positive(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} .* got 0"):
        DeepSpeech2(**{argument: 0})


def test_tokenizer_sets_the_outputs() -> None:
    recognizer = DeepSpeech2(2, 3, 1, tokenizer=CharacterTokenizer("AB "))
    assert recognizer.head.weight.shape == (4, 3)


@pytest.mark.long
def test_full_size_alone_equals_padded() -> None:
    torch.manual_seed(0)
    recognizer = DeepSpeech2().eval()
    lengths = torch.tensor([80_000, 48_000, 3_000])
    targets = recognizer.targets(("HELLO YOU THERE", "A BE", "I"))
    with torch.no_grad():
        together = recognizer.loss(audio(lengths, size=90_000), lengths, targets)
        for row, length in enumerate(lengths.tolist()):
            one = torch.tensor([row])
            alone = recognizer.loss(audio(lengths)[one, :length], lengths[one], targets.select(one))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-4)
