from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr import checkpoint
from robust_asr.models.transformer_decoder import TransformerDecoder
from robust_asr.search.decoder_beam import DecoderBeam
from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.text import CharacterTokenizer
from robust_asr.types import Emissions

TOKENIZER = CharacterTokenizer("ABC ")
SIZE = TOKENIZER.size
FRAMES = torch.tensor([7, 3, 1, 5, 6])


class Listener:
    """A decoder and a head with weights of a size that makes different texts likely."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        sizes = {"width": 8, "num_layers": 2, "num_heads": 2, "feed_forward_width": 12, "dropout": 0.0}
        self.decoder = TransformerDecoder(SIZE, **sizes).double().eval()
        self.head = torch.nn.Linear(8, SIZE).double()
        self.head.weight.data *= 3
        for layer in self.decoder.layers:
            layer.cross_attention.output.weight.data *= 3
            layer.self_attention.output.weight.data *= 3
        self.head.bias.data[0] -= 3
        self.hidden = 2 * torch.randn(len(FRAMES), 7, 8, dtype=torch.float64)

    def step(self, tokens: Tensor, state: object) -> tuple[Tensor, object]:
        states, state = self.decoder.step(tokens, state)
        return self.head(states).log_softmax(-1), state

    def found(self, search: DecoderBeam, rows: slice = slice(None), extra: int = 0) -> list[list[int]]:
        lengths = FRAMES[rows]
        hidden = self.hidden[rows, : int(lengths.max())]
        hidden = torch.cat([hidden, torch.full((len(lengths), extra, 8), 9.0)], 1)
        return search(self.step, self.decoder.start(hidden, lengths), lengths, TOKENIZER)

    def log_probs(self, row: int, text: list[int]) -> list[float]:
        """Of each next token after a text, without anything kept from before."""
        one = slice(row, row + 1)
        states = self.decoder(torch.tensor([[0, *text]]), self.hidden[one], FRAMES[one])
        return self.head(states[0, -1]).log_softmax(-1).tolist()


def language_model(path: Path, tokenizer: CharacterTokenizer = TOKENIZER) -> tuple[str, LanguageModel]:
    torch.manual_seed(5)
    model = LanguageModel(tokenizer, width=6, num_layers=1).eval()
    model.head.weight.data *= 4
    checkpoint.save(model, path / "language.ckpt", name=LANGUAGE_MODEL)
    return str(path / "language.ckpt"), model


def plain_beam(
    listener: Listener, row: int, width: int, *, power: float, model: LanguageModel | None = None, weight: float = 0.0
) -> list[int]:
    """Beam search in plain Python: no cache, no batch, no early end."""
    room = int(FRAMES[row])
    beam: list[tuple[list[int], float]] = [([], 0.0)]
    complete: list[tuple[float, list[int]]] = []
    while beam:
        candidates = []
        for text, score in beam:
            log_probs = listener.log_probs(row, text)
            if model is not None:
                expected = next_of(model, text)
                log_probs = [heard + weight * other for heard, other in zip(log_probs, expected, strict=True)]
            tokens = range(SIZE) if len(text) < room else [0]
            candidates += [([*text, token], score + log_probs[token]) for token in tokens]
        candidates = sorted(candidates, key=lambda candidate: -candidate[1])[:width]
        complete += [(score / len(text) ** power, text[:-1]) for text, score in candidates if text[-1] == 0]
        beam = [(text, score) for text, score in candidates if text[-1] != 0]
    return max(complete, key=lambda candidate: candidate[0])[1]


def next_of(model: LanguageModel, text: list[int]) -> list[float]:
    values, _ = model.lstm(model.embedding(torch.tensor([[0, *text]])))
    return model.head(values[0, -1]).log_softmax(-1).tolist()


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_finds_what_a_plain_beam_without_cache_finds(width: int, power: float):
    different = set()
    for seed in range(3):
        listener = Listener(seed)
        found = listener.found(DecoderBeam(width, length_power=power))
        assert found == [plain_beam(listener, row, width, power=power) for row in range(len(FRAMES))]
        different |= set(map(tuple, found))
    assert len(different) > 3, "a test of one text would prove nothing"


@torch.no_grad()
def test_finds_what_a_plain_beam_with_a_language_model_finds(tmp_path: Path):
    path, model = language_model(tmp_path)
    listener = Listener()
    found = {}
    for weight in (0.05, 0.5):
        search = DecoderBeam(3, language_model=path, language_model_weight=weight)
        found[weight] = listener.found(search)
        rows = range(len(FRAMES))
        assert found[weight] == [plain_beam(listener, row, 3, power=1.0, model=model, weight=weight) for row in rows]
    assert found[0.05] != found[0.5]


def test_a_beam_wide_enough_finds_the_best_of_all_texts():
    listener = Listener(1)
    row, room = 1, int(FRAMES[1])
    best = (-torch.inf, [])
    for length in range(room + 1):
        for text in product(range(1, SIZE), repeat=length):
            scores = [listener.log_probs(row, list(text[:place]))[token] for place, token in enumerate([*text, 0])]
            best = max(best, (sum(scores) / (length + 1) ** 0.5, list(text)))
    assert listener.found(DecoderBeam(SIZE**room, length_power=0.5), slice(1, 2)) == [best[1]]


def test_with_ctc_a_beam_wide_enough_finds_the_best_of_all_texts():
    """Whose score is that of the decoder and minus the CTC loss of the whole text."""
    listener, one = Listener(0), slice(1, 2)
    room = int(FRAMES[1])
    log_probs = (5 * torch.randn(1, room, SIZE, dtype=torch.float64)).log_softmax(-1)
    best, without = (-torch.inf, []), (-torch.inf, [])
    for length in range(room + 1):
        for text in product(range(1, SIZE), repeat=length):
            scores = [listener.log_probs(1, list(text[:place]))[token] for place, token in enumerate([*text, 0])]
            lengths = FRAMES[one], torch.tensor([length])
            loss = torch.nn.functional.ctc_loss(
                log_probs[0, :, None], torch.tensor([text]).long(), *lengths, reduction="sum"
            )
            best = max(best, (0.4 * sum(scores) - 0.6 * float(loss), list(text)))
            without = max(without, (sum(scores), list(text)))
    search = DecoderBeam(SIZE**room, length_power=0.0, ctc_weight=0.6)
    state = listener.decoder.start(listener.hidden[one, :room], FRAMES[one])
    emissions = Emissions(log_probs, FRAMES[one])
    assert search(listener.step, state, FRAMES[one], TOKENIZER, emissions=emissions) == [best[1]] != [without[1]]


def test_width_1_is_the_most_probable_next_token():
    listener = Listener(2)
    for row, found in enumerate(listener.found(DecoderBeam(1))):
        text: list[int] = []
        while len(text) < int(FRAMES[row]):
            log_probs = listener.log_probs(row, text)
            token = log_probs.index(max(log_probs))
            if token == 0:
                break
            text.append(token)
        assert found == text


@pytest.mark.parametrize("width", [1, 4])
def test_neither_neighbours_nor_padding_change_what_is_found(width: int):
    listener, search = Listener(3), DecoderBeam(width)
    together = listener.found(search)
    assert listener.found(search, extra=4) == together
    assert [listener.found(search, slice(row, row + 1))[0] for row in range(len(FRAMES))] == together


def test_a_text_ends_where_its_room_does():
    listener = Listener()
    with torch.no_grad():
        listener.head.bias[0] = -50.0
    assert [len(text) for text in listener.found(DecoderBeam(2))] == FRAMES.tolist()


def test_length_power_weighs_long_texts():
    lengths = [
        sum(len(text) for seed in range(3) for text in Listener(seed).found(DecoderBeam(8, length_power=power)))
        for power in (0.0, 1.0)
    ]
    assert lengths[0] < lengths[1]


def test_a_copy_reads_the_language_model_again(tmp_path: Path):
    path, _ = language_model(tmp_path)
    search = DecoderBeam(2, language_model=path, language_model_weight=0.3)
    listener = Listener()
    found = listener.found(search)
    copied = pickle.loads(pickle.dumps(search))
    assert len(pickle.dumps(search)) < 1000 and listener.found(copied) == found


def test_a_language_model_of_other_tokens_is_refused(tmp_path: Path):
    path = str(tmp_path / "other.ckpt")
    checkpoint.save(LanguageModel(CharacterTokenizer("AB"), width=2), path, name=LANGUAGE_MODEL)
    search = DecoderBeam(2, language_model=path, language_model_weight=0.3)
    with pytest.raises(ValueError, match="knows the tokens of a CharacterTokenizer of 3 ids, the recogniser those of"):
        Listener().found(search)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"width": 0}, "width must be at least 1, found 0"),
        ({"length_power": -1.0}, "length_power must be finite and not negative, found -1.0"),
        ({"language_model_weight": -0.1}, "language_model_weight must be finite and not negative"),
        ({"language_model_weight": 0.1}, "give both or none"),
        ({"ctc_weight": 1.0}, "ctc_weight must be at least 0 and below 1, found 1.0"),
    ],
)
def test_a_value_out_of_range_is_named(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        DecoderBeam(**wrong)


def test_a_missing_language_model_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="DecoderBeam: there is no file"):
        DecoderBeam(language_model=str(tmp_path / "none.ckpt"), language_model_weight=0.1)
