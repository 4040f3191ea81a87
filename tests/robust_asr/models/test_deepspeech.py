from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.defenses.base import Chain, Defended
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.models.deepspeech import ContextualMfcc, DeepSpeech
from robust_asr.models.features import normalize_utterance
from robust_asr.models.keyed_dropout import KeyedDropout
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from tests.robust_asr.defenses.parts import Gain
from tests.robust_asr.test_contract import LENGTHS, TEXTS, audio

SEEDS = torch.tensor([3, 2**62, 7])


def small(**options: object) -> DeepSpeech:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepSpeech(num_hidden=12, **options).eval()


def plain(recognizer: DeepSpeech, waveform: Tensor) -> Tensor:
    """DeepSpeech for one utterance, frame by frame. Shape: (T,) -> (F, V)."""
    state = recognizer.state_dict()
    length = torch.tensor([len(waveform)])
    energies = recognizer.front_end.log_mel(waveform[None], length)[0][0]
    # The orthonormal cosine transform of type II.
    number = torch.arange(recognizer.num_coefficients)[:, None]
    cosines = torch.cos(torch.pi * number * (torch.arange(40) + 0.5) / 40) * (2 / 40) ** 0.5
    cosines[0] /= 2**0.5
    coefficients = energies @ cosines.T
    features = normalize_utterance(coefficients[None], torch.tensor([len(coefficients)]))[0]

    def dense(values: Tensor, name: str) -> Tensor:
        return functional.linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    around = recognizer.num_context
    padded = functional.pad(features, (0, 0, around, around))
    # The neighbours of a frame lie coefficient by coefficient.
    values = torch.stack([padded[frame : frame + 2 * around + 1].T.flatten() for frame in range(len(features))])
    for layer in range(3):
        values = dense(values, f"dense.{layer}.linear").clamp(0, 20)
    lstm = nn.LSTM(12, 12, bidirectional=True)
    prefix = "rnn.lstm."
    lstm.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    forward, backward = lstm(values)[0].chunk(2, -1)
    return dense(dense(forward + backward, "last_dense.linear").clamp(0, 20), "head").log_softmax(-1)


@torch.no_grad()
def test_equals_a_plain_implementation() -> None:
    recognizer = small()
    emissions = recognizer.emissions(audio(LENGTHS, size=9000), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = plain(recognizer, audio(LENGTHS)[row, :length])
        assert int(emissions.frame_lengths[row]) == len(expected) == length // 320 + 1
        torch.testing.assert_close(emissions.log_probs[row, : len(expected)], expected, rtol=0, atol=1e-5)


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        recognizer = DeepSpeech()
    dense = (19 * 26 + 1) * 2048 + 3 * (2048 + 1) * 2048
    lstm = 2 * 4 * 2048 * (2048 + 2048 + 2)
    head = (2048 + 1) * 29
    assert sum(parameter.numel() for parameter in recognizer.parameters()) == dense + lstm + head == 80_803_869


def test_neighbours_stand_beside_a_frame() -> None:
    alone, with_context = ContextualMfcc(4, 0), ContextualMfcc(4, 2)
    own = alone(audio(LENGTHS), LENGTHS)[0][0]
    (found, _), last = with_context(audio(LENGTHS), LENGTHS), len(own) - 1
    windows = found[0].unflatten(-1, (4, 5))
    for frame in (0, 1, 9, last):
        for offset in range(-2, 3):
            inside = 0 <= frame + offset <= last
            expected = own[frame + offset] if inside else torch.zeros(4)
            torch.testing.assert_close(windows[frame, :, offset + 2], expected)


def test_dropout_keeps_the_share_and_the_mean() -> None:
    layer = KeyedDropout(0.5, layer=0).eval()
    layer.evaluation_rate = 0.2
    dropped = layer(torch.ones(2, 100, 200), torch.tensor([100, 100]), torch.tensor([0, 1]))
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    for row in dropped:
        # Five deviations of 20,000 draws.
        assert float((row == 0).float().mean()) == pytest.approx(0.2, abs=0.015)
    assert not torch.equal(*dropped)


def test_layers_draw_differently() -> None:
    first, second = KeyedDropout(0.0, layer=0).eval(), KeyedDropout(0.0, layer=1).eval()
    first.evaluation_rate = second.evaluation_rate = 0.5
    given = torch.ones(1, 10, 10), torch.tensor([10]), torch.tensor([5])
    assert not torch.equal(first(*given), second(*given))


@pytest.mark.parametrize("rates", [{"dense": 0.3}, {"recurrent": 0.3}, {"dense": 0.1, "recurrent": 0.5}])
def test_evaluation_dropout_is_keyed(rates: dict) -> None:
    recognizer = small()
    assert not recognizer.stochastic
    exact = recognizer.loss(audio(LENGTHS), LENGTHS, recognizer.targets(TEXTS))
    recognizer.use_dropout(rates)
    assert recognizer.stochastic

    def losses(*, size: int = 8000, rows: list[int] | None = None, seeds: Tensor | None = SEEDS) -> Tensor:
        rows = rows or [0, 1, 2]
        targets = recognizer.targets([TEXTS[row] for row in rows])
        lengths = LENGTHS[rows]
        return recognizer.loss(
            audio(LENGTHS, size=size)[rows], lengths, targets, seeds=None if seeds is None else seeds[rows]
        )

    together = losses()
    assert torch.equal(losses(), together)
    torch.testing.assert_close(losses(size=12_000), together)
    torch.testing.assert_close(losses(rows=[2, 0]), together[[2, 0]])
    assert not (losses(seeds=SEEDS + 1) == together).any() and not (together == exact).any()
    torch.manual_seed(0)
    assert not torch.equal(losses(seeds=None), losses(seeds=None)), "without seeds each call draws anew"
    recognizer.use_dropout({})
    assert torch.equal(losses(), exact) and not recognizer.stochastic


def test_kinds_of_layers_drop_where_they_say() -> None:
    recognizer = small()
    recognizer.use_dropout({"dense": 0.25})
    assert [layer.dropout.evaluation_rate for layer in [*recognizer.dense, recognizer.last_dense]] == [0.25] * 4
    assert recognizer.rnn_dropout.evaluation_rate == 0.0
    recognizer.use_dropout({"recurrent": 0.1})
    assert [layer.dropout.evaluation_rate for layer in [*recognizer.dense, recognizer.last_dense]] == [0.0] * 4
    assert recognizer.rnn_dropout.evaluation_rate == 0.1


def test_loss_and_transcript_share_their_draws() -> None:
    recognizer = small(evaluation_dropout={"dense": 0.4})
    targets = recognizer.targets(TEXTS)
    losses, heard = recognizer.loss_and_transcripts(audio(LENGTHS), LENGTHS, targets, seeds=SEEDS)
    assert torch.equal(losses, recognizer.loss(audio(LENGTHS), LENGTHS, targets, seeds=SEEDS))
    assert heard == recognizer.transcribe(audio(LENGTHS), LENGTHS, seeds=SEEDS)


def test_an_attack_meets_the_dropout() -> None:
    recognizer = small(evaluation_dropout={"dense": 0.4}, dropout=0.0)
    recognizer.train()
    targets = recognizer.targets(TEXTS)
    found = []
    for seeds in (SEEDS, SEEDS, SEEDS + 1):
        with frozen_for_attack(recognizer):
            found.append(
                input_gradient(lambda x, key=seeds: recognizer.loss(x, LENGTHS, targets, seeds=key), audio(LENGTHS))[1]
            )
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_defence_hands_on_that_it_draws() -> None:
    assert Defended(Chain([Gain()]), small(evaluation_dropout={"dense": 0.1})).stochastic
    assert not Defended(Chain([Gain()]), small()).stochastic


def test_training_uses_the_training_rate_only() -> None:
    recognizer = small(dropout=0.0, evaluation_dropout={"dense": 0.4}).train()
    targets = recognizer.targets(TEXTS)
    first, second = (recognizer.loss(audio(LENGTHS), LENGTHS, targets) for _ in range(2))
    assert torch.equal(first, second)
    recognizer = small(dropout=0.4).train()
    first, second = (recognizer.loss(audio(LENGTHS), LENGTHS, targets) for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_is_part_of_the_description() -> None:
    recognizer = small(evaluation_dropout={"dense": 0.1})
    description = describe(recognizer)
    rebuilt = trust.build(description, expected=Recognizer, field="recognizer")
    assert rebuilt.stochastic and describe(rebuilt) == description != describe(small())


def test_bfloat16_autocast() -> None:
    recognizer = small()
    exact = recognizer.loss(audio(LENGTHS), LENGTHS, recognizer.targets(TEXTS))
    waveforms = audio(LENGTHS).requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert recognizer.encode(waveforms, LENGTHS)[0].dtype == torch.bfloat16, "or nothing is tested"
        losses = recognizer.loss(waveforms, LENGTHS, recognizer.targets(TEXTS))
    (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
    assert losses.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hidden": 0}, "num_hidden=0"),
        ({"num_coefficients": 41}, "between 1 and 40, .*num_coefficients=41"),
        ({"num_context": -1}, "num_context=-1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        (
            {"evaluation_dropout": {"dense": 1.0}},
            "'dense' is 1.0, accepted are rates in .0, 1. for dense and recurrent",
        ),
        ({"evaluation_dropout": {"convolution": 0.1}}, "'convolution' is 0.1"),
    ],
)
def test_what_it_cannot_be_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSpeech(**{"num_hidden": 4, **options})
