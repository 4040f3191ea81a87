from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchaudio.functional import rnnt_loss

from robust_asr.attacks.aims import TokenMargins
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.rnnt import RNNT, LSTMEncoder, Predictor
from robust_asr.search.greedy import GreedySearch
from robust_asr.search.transducer import TransducerBeam
from tests.robust_asr.search.test_alignment import every_alignment
from tests.robust_asr.search.test_transducer import Network, Scored, plain
from tests.robust_asr.test_contract import LENGTHS, TEXTS, audio

SMALL = {"embedding_width": 6, "predictor_width": 8, "predictor_layers": 2, "joint_width": 10}
ENCODER = {"num_mels": 20, "width": 12, "num_layers": 2}


def small(**options: object) -> RNNT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer = RNNT(LSTMEncoder(**ENCODER), **{**SMALL, **options})
        for _ in range(3):
            recognizer.train().encode(audio(LENGTHS), LENGTHS)
        for parameter in [*recognizer.predictor.parameters(), *recognizer.from_frames.parameters()]:
            torch.nn.init.normal_(parameter, std=0.7)
    return recognizer.eval()


def plain_loss(recognizer: RNNT, waveform: Tensor, text: str) -> Tensor:
    """The loss of one utterance with its whole joint tensor. Shape: (T,) -> ()."""
    length = torch.tensor([len(waveform)])
    features, _ = recognizer.encoder.front_end(waveform[None], length)
    norm = recognizer.encoder.feature_norm
    features = (features[0] - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    # Zeros fill the last stack of three frames.
    features = torch.cat([features, features.new_zeros(-len(features) % 3, 20)])
    hidden = recognizer.encoder.lstm(
        torch.stack([features[row : row + 3].flatten() for row in range(0, len(features), 3)])
    )[0]
    tokens = recognizer.tokenizer.encode(text)
    units, _ = recognizer.predictor.lstm(recognizer.predictor.embedding(torch.tensor([0, *tokens])))
    joint = (recognizer.from_frames(hidden)[:, None] + recognizer.from_tokens(units)[None]).tanh()
    sizes = (torch.tensor([size], dtype=torch.int32) for size in (len(hidden), len(tokens)))
    return rnnt_loss(recognizer.head(joint)[None], torch.tensor([tokens]).int(), *sizes, blank=0, reduction="none")[0]


def test_loss_equals_a_plain_implementation() -> None:
    recognizer = small()
    losses = recognizer.loss(audio(LENGTHS, size=9000), LENGTHS, recognizer.targets(TEXTS))
    for row, length in enumerate(LENGTHS.tolist()):
        expected = plain_loss(recognizer, audio(LENGTHS)[row, :length], TEXTS[row])
        torch.testing.assert_close(losses[row], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("search", [TransducerBeam(1), TransducerBeam(4, length_power=1.0)], ids=["greedy", "beam"])
def test_transcripts_equal_a_plain_search(search: TransducerBeam) -> None:
    recognizer = small()
    recognizer.use_search(search)
    with torch.no_grad():
        hidden, frame_lengths = recognizer.encode(audio(LENGTHS), LENGTHS)
        frames = recognizer.from_frames(hidden)
    found = recognizer.transcribe(audio(LENGTHS), LENGTHS)
    for row, length in enumerate(frame_lengths.tolist()):
        tokens, _, _ = plain(search, recognizer, frames[row, :length])
        assert found[row].text == " ".join(recognizer.tokenizer.decode(tokens).split())
        assert all(0 <= word.start < word.end <= length * 0.03 for word in found[row].words)
    assert any(transcript.text for transcript in found)


def plain_joint(recognizer: RNNT, waveform: Tensor, tokens: list[int]) -> Tensor:
    """All log-probabilities of an utterance. Shape: (T,) -> (F, U + 1, V)."""
    hidden, _ = recognizer.encode(waveform[None], torch.tensor([len(waveform)]))
    predicted = recognizer.from_tokens(recognizer.predictor(torch.tensor([tokens], dtype=torch.long)))
    return recognizer.log_probs(recognizer.from_frames(hidden)[0, :, None], predicted)


def test_forced_steps_are_those_of_the_most_probable_alignment() -> None:
    recognizer, texts = small(), ("HI", "", "A")
    lengths = torch.tensor([2400, 1500, 700])
    targets, waveforms = recognizer.targets(texts), audio(lengths, size=4000)
    forced = recognizer.teacher_forced(*recognizer.encode(waveforms, lengths), targets)
    for row, length in enumerate(lengths.tolist()):
        tokens = recognizer.tokenizer.encode(texts[row])
        joint = plain_joint(recognizer, waveforms[row, :length], tokens)
        # At the last token none follows.
        following = [*tokens, 0]
        pairs = torch.stack([joint[..., 0], joint[:, range(len(following)), following]], -1)
        every = every_alignment(pairs.detach(), len(joint), len(tokens))
        frames, num_steps = max(every, key=every.get), len(joint) + len(tokens)
        assert forced.lengths[row] == num_steps
        chosen = forced.tokens[row, :num_steps]
        assert chosen[chosen != 0].tolist() == tokens and chosen[-1] == 0
        scores, written = forced.scores[row, :num_steps], 0
        for step in range(num_steps):
            torch.testing.assert_close(scores[step], joint[step - written, written], rtol=0, atol=1e-5)
            written += int(chosen[step] != 0)
        total = scores.detach().gather(1, chosen[:, None]).sum()
        assert float(total) == pytest.approx(every[frames], abs=1e-4)


def test_forced_steps_have_a_gradient() -> None:
    recognizer = small()
    aim = TokenMargins(recognizer.targets(TEXTS))
    waveforms = audio(LENGTHS)
    with frozen_for_attack(recognizer):
        values, gradient = input_gradient(
            lambda inputs: aim.values(recognizer, inputs, LENGTHS, seeds=torch.zeros(3, dtype=torch.long)), waveforms
        )
    assert values.isfinite().all() and gradient.isfinite().all() and gradient.any(1).all()


def test_predictor_steps_as_it_runs() -> None:
    torch.manual_seed(0)
    predictor = Predictor(7, embedding_width=3, width=4, num_layers=2)
    tokens = torch.tensor([[1, 5, 6], [2, 2, 0]])
    state, answers = predictor.initial_state(2), []
    for column in torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens], 1).T:
        answer, state = predictor.step(column, state)
        answers.append(answer)
    torch.testing.assert_close(torch.stack(answers, 1), predictor(tokens))


@pytest.mark.parametrize("encoder", [LSTMEncoder(**ENCODER), None], ids=["lstm", "conformer"])
def test_memory_has_a_bound_that_changes_nothing(encoder: LSTMEncoder | None) -> None:
    sizes = {"num_mels": 20, "subsampling_channels": 4, "width": 12, "num_layers": 1, "num_heads": 2, "kernel_size": 3}
    recognizer = RNNT(encoder or ConformerEncoder(feed_forward_width=8, **sizes), **SMALL).eval()
    targets = recognizer.targets(TEXTS)
    found = []
    for bound in (RNNT.max_joint_scores, 3 * 10 * 29 * 2, 1):
        recognizer.max_joint_scores = bound
        losses = recognizer.loss(audio(LENGTHS), LENGTHS, targets)
        parameters = torch.autograd.grad(losses.sum(), list(recognizer.parameters()))
        with frozen_for_attack(recognizer):
            _, gradient = input_gradient(lambda x: recognizer.loss(x, LENGTHS, targets), audio(LENGTHS))
        found.append([losses, gradient, *parameters])
    for other in found[1:]:
        for value, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_hears_the_past_only() -> None:
    encoder = small().encoder
    changed = audio(LENGTHS)
    changed[:, 4000:] = 0.1
    usual, later = (encoder(values, LENGTHS)[0][0] for values in (audio(LENGTHS), changed))
    # A window of 25 ms around a frame, in stacks of three: what ends before 250 ms is the same.
    differing = (usual != later).any(1).nonzero()[:, 0]
    assert 7 <= int(differing.min()) <= 8 and len(usual) == 17 == int(encoder.num_frames(LENGTHS)[0])


@pytest.mark.parametrize("length", [1, 79, 80, 240, 400, 560, 880, 16_001])
def test_frames_are_counted_as_they_come(length: int) -> None:
    encoder = small().encoder
    lengths = torch.tensor([length])
    hidden, step_lengths = encoder(torch.zeros(1, length), lengths)
    assert hidden.shape[1] == step_lengths.item() == encoder.num_frames(lengths).item()


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        recognizer = RNNT(LSTMEncoder())

    def lstm(num_in: int, num_layers: int) -> int:
        return 4 * 1024 * (num_in + 1024 + 2 + (num_layers - 1) * (2 * 1024 + 2))

    joint = (1024 + 1) * 640 + 1024 * 640 + (640 + 1) * 29
    expected = 2 * 80 + lstm(240, 5) + 29 * 512 + lstm(512, 2) + joint
    assert sum(parameter.numel() for parameter in recognizer.parameters()) == expected == 54_814_141


def test_bfloat16_autocast() -> None:
    recognizer = small()
    targets = recognizer.targets(TEXTS)
    exact = recognizer.loss(audio(LENGTHS), LENGTHS, targets)
    waveforms = audio(LENGTHS).requires_grad_(True)
    for bound in (RNNT.max_joint_scores, 1000):
        recognizer.max_joint_scores = bound
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = recognizer.loss(waveforms, LENGTHS, targets)
        (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
        assert losses.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
        torch.testing.assert_close(losses, exact, rtol=0.05, atol=0)


def test_other_searches_are_refused() -> None:
    with pytest.raises(ValueError, match="search: RNNT takes a TransducerBeam, found GreedySearch"):
        small().use_search(GreedySearch())


def test_a_language_model_is_heard() -> None:
    recognizer = small()
    usual = recognizer.transcribe(audio(LENGTHS), LENGTHS)
    recognizer.use_search(Scored(4, Network(5, size=29, scores=True), 3.0))
    assert recognizer.transcribe(audio(LENGTHS), LENGTHS) != usual


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RNNT(LSTMEncoder(**ENCODER), joint_width=0), "joint_width is 0, accepted is 1 or more"),
        (lambda: LSTMEncoder(stack=0), "stack is 0, accepted is 1 or more"),
        (lambda: LSTMEncoder(dropout=1.0), "dropout is 1.0"),
    ],
)
def test_what_it_cannot_be_is_named(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
