from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robust_asr.search.transducer import TransducerBeam
from robust_asr.text import CharacterTokenizer
from robust_asr.types import TokenTargets, Transcript
from tests.robust_asr.models.test_transducer_loss import loss_of
from tests.robust_asr.search.test_decoder_beam import language_model

TOKENIZER = CharacterTokenizer("AB ")
SHIFT = 0.03
LENGTHS = torch.tensor([7, 1, 5, 9])


class Network(nn.Module):
    """A transducer whose predictor is a GRU, with weights so large that what was written matters; also a scorer."""

    def __init__(self, seed: int, *, size: int = 4, blank: float = 0.0, scores: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(size, 5)
            self.cell = nn.GRUCell(5, 5)
            self.head = nn.Linear(5, size)
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=1.2)
            self.head.bias.data[0] += blank
        self.scores = scores

    def initial_state(self, num: int) -> Tensor:
        return torch.zeros(num, 5)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.embedding(tokens), state)
        return (self.head(state).log_softmax(-1) if self.scores else state), state

    def log_probs(self, frames: Tensor, predicted: Tensor) -> Tensor:
        return self.head((frames + predicted).tanh()).log_softmax(-1)


class Scored(TransducerBeam):
    """A beam with a language model that is no file."""

    def __init__(self, width: int, scorer: Network, weight: float, **options: float) -> None:
        super().__init__(width, **options)
        self.scorer, self.language_model_weight = scorer, weight

    def fused(self, tokenizer: CharacterTokenizer, device: torch.device) -> Network:
        return self.scorer


def frames_of(seed: int, lengths: Tensor = LENGTHS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(len(lengths), int(lengths.max()), 5, generator=generator)


def after(network: Network, tokens: tuple[int, ...]) -> Tensor:
    """What a network answers after the blank and these tokens."""
    answer, state = network.step(torch.tensor([0]), network.initial_state(1))
    for token in tokens:
        answer, state = network.step(torch.tensor([token]), state)
    return answer[0]


@torch.no_grad()
def plain(search: TransducerBeam, network: Network, frames: Tensor) -> tuple[tuple[int, ...], list[int], list[float]]:
    """The same search for one utterance: texts in a dictionary, one candidate after the other. Shape: (F, J)."""
    num_frames = len(frames)
    room = math.ceil(num_frames * search.tokens_per_frame)
    # Text -> score, frames and log-probabilities of its tokens.
    beam: dict = {(): (0.0, [], [])}
    best: tuple = (-math.inf, (), [], [])
    for step in range(num_frames + room):
        candidates: dict = {}
        for text, (score, times, heard) in beam.items():
            frame = step - len(text)
            log_probs = network.log_probs(frames[frame], after(network, text)).double().tolist()
            expected = [0.0] * len(log_probs)
            if isinstance(search, Scored):
                known = after(search.scorer, text).double().tolist()
                expected = [search.language_model_weight * value for value in known]
            if frame == num_frames - 1:
                value = (score + log_probs[0] + expected[0]) / (len(text) + 1) ** search.length_power
                best = max(best, (value, text, times, heard), key=lambda entry: entry[0])
            else:
                candidates.setdefault(text, []).append((score + log_probs[0], times, heard))
            if len(text) < room:
                for token in range(1, len(log_probs)):
                    new = score + log_probs[token] + expected[token], [*times, frame], [*heard, log_probs[token]]
                    candidates.setdefault((*text, token), []).append(new)
        summed = {
            text: (math.log(sum(math.exp(one[0]) for one in ways)), *max(ways, key=lambda one: one[0])[1:])
            for text, ways in candidates.items()
        }
        kept = sorted(summed.items(), key=lambda item: -item[1][0])[: search.width]
        mass = sum(math.exp(one[0]) for _, one in kept)
        open_ends = mass > 0 and math.log(mass) / (room + 1) ** search.length_power > best[0]
        beam = dict(kept) if open_ends else {}
    return best[1:]


def words(tokens: tuple[int, ...], times: list[int], heard: list[float]) -> list[tuple[str, float, float, float]]:
    """Words with start, end and confidence, from the tokens and the frames in which they are emitted."""
    found, place = [], 0
    for word in TOKENIZER.decode(tokens).split(" "):
        if word:
            inside = range(place, place + len(word))
            confidence = math.exp(sum(heard[index] for index in inside) / len(word))
            found.append((word, times[inside[0]] * SHIFT, (times[inside[-1]] + 1) * SHIFT, confidence))
        place += len(word) + 1
    return found


def heard_by(search: TransducerBeam, network: Network, frames: Tensor, lengths: Tensor) -> list[Transcript]:
    return search(network, frames, lengths, TOKENIZER, frame_shift=SHIFT)


SEARCHES = {
    "greedy": TransducerBeam(1),
    "two": TransducerBeam(2),
    "more than there are": TransducerBeam(30, tokens_per_frame=0.3),
    "five": TransducerBeam(5, tokens_per_frame=0.6),
    "normalised": TransducerBeam(4, length_power=1.0),
    "fused": Scored(4, Network(100, scores=True), 0.5),
    "fused and normalised": Scored(3, Network(101, scores=True), 1.5, length_power=0.5, tokens_per_frame=2.0),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", SEARCHES)
def test_equals_a_plain_implementation(kind: str, seed: int) -> None:
    search, network, frames = SEARCHES[kind], Network(seed, blank=0.5), frames_of(seed)
    found = heard_by(search, network, frames, LENGTHS)
    expected = [plain(search, network, frames[row, :length]) for row, length in enumerate(LENGTHS.tolist())]
    assert [one.text for one in found] == [" ".join(TOKENIZER.decode(one[0]).split()) for one in expected]
    for transcript, one in zip(found, expected, strict=True):
        numbers = [(word.text, word.start, word.end, word.confidence) for word in transcript.words]
        for ours, right in zip(numbers, words(*one), strict=True):
            assert ours[0] == right[0] and ours[1:] == pytest.approx(right[1:], rel=1e-4)
    assert any(transcript.text for transcript in found), "or nothing is tested"


def test_a_language_model_matters_and_its_tokens_are_those_of_the_recogniser(tmp_path: Path) -> None:
    def texts(search: TransducerBeam) -> list[list[str]]:
        return [[one.text for one in heard_by(search, Network(seed), frames_of(seed), LENGTHS)] for seed in range(4)]

    path, model = language_model(tmp_path, TOKENIZER)
    slight, strong = (TransducerBeam(4, language_model=path, language_model_weight=weight) for weight in (1e-9, 2.0))
    assert texts(slight) == texts(TransducerBeam(4)) != texts(strong) == texts(Scored(4, model, 2.0))
    with pytest.raises(ValueError, match="knows the tokens of"):
        strong(Network(0), frames_of(0), LENGTHS, CharacterTokenizer("ABC "), frame_shift=SHIFT)


def test_a_token_spread_over_frames_is_found_by_two() -> None:
    """Of ten frames each emits A with 0.3: most likely some does, though in each the blank is likelier."""

    class Spread(Network):
        def log_probs(self, frames: Tensor, predicted: Tensor) -> Tensor:
            # After a token nothing follows.
            written = predicted.sum(-1, keepdim=True) > 0
            before, behind = torch.tensor([0.7, 0.3, 0.0, 0.0]).log(), torch.tensor([1.0, 0.0, 0.0, 0.0]).log()
            return torch.where(written, behind, before)

        def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            state = state + (tokens > 0)[:, None]
            return state, state

    texts = [
        heard_by(TransducerBeam(width), Spread(0), torch.zeros(1, 10, 5), torch.tensor([10]))[0].text
        for width in (1, 2)
    ]
    assert texts == ["", "A"]


@torch.no_grad()
def test_a_wide_beam_finds_the_most_probable_text() -> None:
    """Against the loss of every text that fits into the room."""
    lengths = torch.tensor([3])
    texts = [text for length in range(4) for text in product((1, 2, 3), repeat=length)]
    for seed in range(8):
        network, frames = Network(seed), frames_of(seed, lengths)
        losses = []
        for text in texts:
            targets = TokenTargets(torch.tensor([text], dtype=torch.long), torch.tensor([len(text)]))
            predicted = torch.stack([after(network, text[:count]) for count in range(len(text) + 1)])[None]
            losses.append(float(loss_of(network.log_probs, frames, lengths, predicted, targets, size=4)))
        best = texts[losses.index(min(losses))]
        (found,) = heard_by(TransducerBeam(100), network, frames, lengths)
        assert found.text == " ".join(TOKENIZER.decode(best).split())


@pytest.mark.parametrize("kind", SEARCHES)
def test_neither_the_batch_nor_its_padding_is_heard(kind: str) -> None:
    search, network = SEARCHES[kind], Network(7)
    frames = frames_of(7).masked_fill(torch.arange(9)[None, :, None] >= LENGTHS[:, None, None], torch.nan)
    together = heard_by(search, network, torch.cat([frames, frames], 1), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        (alone,) = heard_by(search, network, frames[row : row + 1, :length], LENGTHS[row : row + 1])
        assert alone.text == together[row].text
        assert [(word.start, word.end) for word in alone.words] == [
            (word.start, word.end) for word in together[row].words
        ]


def test_a_network_that_never_ends_a_frame_is_bounded() -> None:
    network = Network(0, blank=-50.0)
    found = heard_by(TransducerBeam(3, tokens_per_frame=0.5), network, frames_of(0), LENGTHS)
    room = [math.ceil(length * 0.5) for length in LENGTHS.tolist()]
    assert all(len(one.text) <= most for one, most in zip(found, room, strict=True)) and any(one.text for one in found)


def test_no_utterances() -> None:
    assert heard_by(TransducerBeam(2), Network(0), torch.zeros(0, 0, 5), LENGTHS[:0]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1 .* found 0"),
        ({"tokens_per_frame": 0.0}, "tokens_per_frame positive, found 4 and 0.0"),
        ({"length_power": -1.0}, "length_power must be finite and not negative, found -1.0"),
        ({"language_model_weight": 0.3}, "language_model_weight 0.3: give both or none"),
    ],
)
def test_what_it_cannot_be_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransducerBeam(**options)
