from __future__ import annotations

import copy
import itertools
import math
import pickle
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.search.beam import BeamSearch, words_of
from robust_asr.search.greedy import GreedySearch
from robust_asr.storage.describe import describe
from robust_asr.text import CharacterTokenizer
from robust_asr.types import Emissions
from tests.robust_asr.search.test_greedy import Pieces, emissions_of

pytest.importorskip("flashlight", reason="the extra 'beam' is not installed")

TOKENIZER = CharacterTokenizer("AB ")
LEXICON = ["A", "BA", "AB"]
BIGRAM = """\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.1
-0.7\t</s>
-0.2\tA\t-0.4
-1.5\tBA\t-0.3
-0.9\tAB\t0

\\2-grams:
-0.05\tA BA

\\end\\
"""
WORD = {"A": -0.2, "BA": -1.5, "AB": -0.9, "</s>": -0.7}
BACK_OFF = {"<s>": -0.1, "A": -0.4, "BA": -0.3, "AB": 0.0}


def ngram_score(words: list[str]) -> float:
    """What BIGRAM gives a sentence, in decades."""
    pairs = itertools.pairwise(["<s>", *words, "</s>"])
    return sum(-0.05 if pair == ("A", "BA") else BACK_OFF[pair[0]] + WORD[pair[1]] for pair in pairs)


def random_emissions(seed: int, num_frames: int = 5) -> Emissions:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (1.5 * torch.randn(2, num_frames, 4, generator=generator)).log_softmax(-1)
    return Emissions(log_probs, torch.tensor([num_frames, num_frames - 2]))


def totals(log_probs: Tensor, *, spaces: bool = True) -> dict[str, float]:
    """Probability of each text, summed over every path: brute force."""
    total: dict[str, float] = defaultdict(float)
    num_frames, size = log_probs.shape
    for path in itertools.product(range(size), repeat=num_frames):
        tokens = [label for label, _ in itertools.groupby(path) if label]
        text = TOKENIZER.decode(tokens)
        total[text if spaces else " ".join(text.split())] += math.exp(
            sum(float(log_probs[frame, label]) for frame, label in enumerate(path))
        )
    return total


def best_of(
    emissions: Emissions,
    row: int,
    *,
    spaces: bool,
    words: list[str] | None = None,
    score: Callable[[str], float] = lambda text: 0.0,
) -> str:
    found = totals(emissions.log_probs[row, : emissions.frame_lengths[row]], spaces=spaces)
    allowed = {text: p for text, p in found.items() if words is None or set(text.split()) <= set(words)}
    best = max(allowed, key=lambda text: math.log(allowed[text]) + score(text))
    return " ".join(best.split())


@pytest.mark.parametrize("seed", range(12))
def test_highest_total_probability(seed: int) -> None:
    emissions = random_emissions(seed)
    found = BeamSearch()(emissions, TOKENIZER, frame_shift=1.0)
    assert [text.text for text in found] == [best_of(emissions, row, spaces=True) for row in (0, 1)]


def test_sum_beats_the_best_path() -> None:
    # Every frame: blank 0.4, A 0.35. The best path is silent (0.16); the paths of A together have 0.4.
    emissions = Emissions(torch.tensor([[[0.4, 0.35, 0.15, 0.1]] * 2]).log(), torch.tensor([2]))
    assert GreedySearch()(emissions, TOKENIZER, frame_shift=1.0)[0].text == ""
    assert BeamSearch()(emissions, TOKENIZER, frame_shift=1.0)[0].text == "A"


@pytest.mark.parametrize("seed", range(12))
def test_only_words_of_the_lexicon(seed: int) -> None:
    emissions = random_emissions(seed)
    found = BeamSearch(lexicon=LEXICON)(emissions, TOKENIZER, frame_shift=1.0)
    expected = [best_of(emissions, row, spaces=False, words=LEXICON) for row in (0, 1)]
    assert [text.text for text in found] == expected


@pytest.mark.parametrize("seed", range(8))
def test_ngram_over_words(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(BIGRAM)
    emissions = random_emissions(seed)
    decoder = BeamSearch(lexicon=LEXICON, ngram=str(path), ngram_weight=1.5, word_score=0.3)
    found = decoder(emissions, TOKENIZER, frame_shift=1.0)

    def score(text: str) -> float:
        return 1.5 * ngram_score(text.split()) + 0.3 * len(text.split())

    expected = [best_of(emissions, row, spaces=False, score=score, words=LEXICON) for row in (0, 1)]
    assert [text.text for text in found] == expected


@pytest.mark.parametrize("seed", range(8))
def test_ngram_over_characters(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "characters.arpa"
    path.write_text(BIGRAM.replace("BA", "B").replace("AB", "|"))
    emissions = random_emissions(seed)
    found = BeamSearch(ngram=str(path), ngram_weight=1.5)(emissions, TOKENIZER, frame_shift=1.0)
    named = {"A": "A", "B": "BA", " ": "AB"}

    def score(text: str) -> float:
        return 1.5 * ngram_score([named[character] for character in text])

    assert [text.text for text in found] == [best_of(emissions, row, spaces=True, score=score) for row in (0, 1)]


def test_word_times_and_the_last_word() -> None:
    labels = [[1, 2, 2, 3, 0, 1, 0], [2, 1]]
    emissions = emissions_of(labels, probability=0.97)
    for decoder in (BeamSearch(), BeamSearch(lexicon=LEXICON)):
        first, second = decoder(emissions, TOKENIZER, frame_shift=0.5)
        assert (first.text, second.text) == ("AB A", "BA")
        assert [word.start for word in first.words] == [0.0, 2.5]
        assert [word.start for word in second.words] == [0.0]
        assert all(0.9 < word.confidence <= 1 for word in first.words + second.words)


def test_half_a_word_is_no_word() -> None:
    # A beam of one keeps the A alone, from which the only word can no longer be reached.
    (transcript,) = BeamSearch(lexicon=["AB"], beam_size=1)(emissions_of([[1]]), TOKENIZER, frame_shift=1.0)
    assert transcript.text == "" and transcript.words == ()


def test_no_frames() -> None:
    nothing = Emissions(torch.zeros(1, 0, 4), torch.tensor([0]))
    for decoder in (BeamSearch(), BeamSearch(lexicon=LEXICON)):
        assert decoder(nothing, TOKENIZER, frame_shift=1.0)[0].text == ""


def test_lexicon_of_training_transcripts(tmp_path: Path) -> None:
    texts = ["a ba", "BA  ab", ""]
    assert words_of(texts) == ["BA", "A", "AB"]
    (tmp_path / "texts").write_text("\n".join(texts))
    emissions = random_emissions(0)
    by_file, by_list = (
        BeamSearch(lexicon=lexicon)(emissions, TOKENIZER, frame_shift=1.0)
        for lexicon in (str(tmp_path / "texts"), texts)
    )
    assert by_file == by_list


def test_built_once_and_never_copied() -> None:
    decoder = BeamSearch(lexicon=LEXICON)
    decoder(random_emissions(0), TOKENIZER, frame_shift=1.0)
    built = decoder._built
    decoder(random_emissions(1), TOKENIZER, frame_shift=1.0)
    assert decoder._built is built and built is not None
    for copied in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert copied._built is None and describe(copied) == describe(decoder)
        assert copied(random_emissions(0), TOKENIZER, frame_shift=1.0) == decoder(
            random_emissions(0), TOKENIZER, frame_shift=1.0
        )


def test_another_tokenizer_is_another_trie() -> None:
    decoder, other = BeamSearch(lexicon=["A"]), CharacterTokenizer("BA ")
    emissions = emissions_of([[2]])
    assert decoder(emissions, other, frame_shift=1.0)[0].text == "A"
    assert decoder(emissions_of([[1]]), TOKENIZER, frame_shift=1.0)[0].text == "A"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beam_size": 0}, ValueError, "beam_size"),
        ({"beam_threshold": math.nan}, ValueError, "beam_threshold"),
        ({"ngram": "nowhere.arpa"}, FileNotFoundError, "nowhere.arpa"),
        ({"lexicon": "nowhere.txt"}, FileNotFoundError, "nowhere.txt"),
    ],
)
def test_wrong_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BeamSearch(**arguments)


@pytest.mark.parametrize(("lexicon", "message"), [([], "no word"), (["A", "OÜ"], "Ü")])
def test_wrong_lexicon(lexicon: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearch(lexicon=lexicon)(random_emissions(0), TOKENIZER, frame_shift=1.0)


def test_wrong_ngram(tmp_path: Path) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"ngram .*broken\.arpa cannot be read"):
        BeamSearch(lexicon=LEXICON, ngram=str(path))(random_emissions(0), TOKENIZER, frame_shift=1.0)


def test_a_lexicon_needs_a_space() -> None:
    with pytest.raises(ValueError, match="one token for the space"):
        BeamSearch(lexicon=["A"])(random_emissions(0), Pieces(), frame_shift=1.0)


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        ("flashlight.lib.text.decoder", {}, r"robust-asr\[beam\]"),
        ("flashlight.lib.text.decoder.kenlm", {"ngram": __file__}, "KenLM"),
    ],
)
def test_missing_library_is_named(missing: str, arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=message):
        BeamSearch(**arguments)
