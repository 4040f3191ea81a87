from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robust_asr.search.alignment import best_labels
from robust_asr.search.beam import BeamSearch
from robust_asr.search.greedy import GreedySearch
from robust_asr.search.hypotheses import mixed, prepared, selected
from robust_asr.search.ngram import WordScores
from robust_asr.search.writing import words_of
from robust_asr.storage.describe import describe
from robust_asr.text import CharacterTokenizer
from robust_asr.types import Emissions
from tests.robust_asr.search.test_greedy import Pieces, emissions_of

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


@pytest.mark.parametrize("lexicon", [None, LEXICON])
@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_has_every_alignment(seed: int, lexicon: list[str] | None) -> None:
    emissions = random_emissions(seed)
    decoder = BeamSearch(lexicon=lexicon, beam_size=1000, beam_threshold=1e4)
    log_probs, _ = prepared(emissions, blank=0)
    _, scores = decoder._search(TOKENIZER, log_probs.device)(log_probs)
    for row, length in enumerate(emissions.frame_lengths):
        total = totals(emissions.log_probs[row, :length], spaces=lexicon is None)
        allowed = [p for text, p in total.items() if lexicon is None or set(text.split()) <= set(lexicon)]
        assert float(scores[row]) == pytest.approx(math.log(max(allowed)), abs=1e-6)


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


@pytest.mark.parametrize("seed", range(4))
def test_a_large_ngram_says_the_same(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(BIGRAM)
    emissions = long_emissions(seed=seed)
    by_table = BeamSearch(lexicon=LEXICON, ngram=str(path))(emissions, TOKENIZER, frame_shift=1.0)
    monkeypatch.setattr(WordScores, "largest_table", 0)
    assert BeamSearch(lexicon=LEXICON, ngram=str(path))(emissions, TOKENIZER, frame_shift=1.0) == by_table


def test_a_narrow_beam_knows_what_the_ngram_will_say(tmp_path: Path) -> None:
    """A letter that only leads to a word that the n-gram finds improbable does not push the other one out."""
    path = tmp_path / "words.arpa"
    path.write_text("\\data\\\nngram 1=4\n\n\\1-grams:\n-9 <s>\n-1 </s>\n-0.1 BB\n-3 AA\n\n\\end\\\n")
    letter, gap = [0.04, 0.5, 0.45, 0.01], [0.9, 0.03, 0.03, 0.04]
    emissions = Emissions(torch.tensor([[letter, gap, letter]]).log(), torch.tensor([3]))
    assert BeamSearch(lexicon=["AA", "BB"], beam_size=1)(emissions, TOKENIZER, frame_shift=1.0)[0].text == "AA"
    decoder = BeamSearch(lexicon=["AA", "BB"], ngram=str(path), beam_size=1)
    assert decoder(emissions, TOKENIZER, frame_shift=1.0)[0].text == "BB"


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


@pytest.mark.parametrize("spaces", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_the_best_alignment_of_a_text(seed: int, spaces: bool) -> None:
    emissions = random_emissions(seed)
    emissions = Emissions(emissions.log_probs[:1], emissions.frame_lengths[:1])
    found: dict[str, float] = {}
    for path in itertools.product(range(4), repeat=5):
        text = TOKENIZER.decode([label for label, _ in itertools.groupby(path) if label])
        score = sum(float(emissions.log_probs[0, frame, label]) for frame, label in enumerate(path))
        text = text if spaces else " ".join(text.split())
        found[text] = max(found.get(text, -math.inf), score)
    for text, score in found.items():
        tokens = [TOKENIZER._ids[character] for character in text]
        silence = None if spaces else TOKENIZER._ids[" "]
        labels = best_labels(emissions.log_probs, emissions.frame_lengths, [tokens], blank=0, silence=silence)
        spelled = TOKENIZER.decode([label for label, _ in itertools.groupby(labels[0].tolist()) if label])
        assert (spelled if spaces else " ".join(spelled.split())) == text
        assert float(emissions.log_probs.gather(2, labels[..., None]).sum()) == pytest.approx(score, abs=1e-5)


def long_emissions(num: int = 6, *, seed: int = 0) -> Emissions:
    """Utterances of 0 to 40 frames with garbage in the padding."""
    generator = torch.Generator().manual_seed(seed)
    frame_lengths = torch.tensor([40, 31, 1, 0, 17, 40])[:num]
    log_probs = (3.0 * torch.randn(num, 45, 4, generator=generator)).log_softmax(-1)
    for row, length in enumerate(frame_lengths):
        log_probs[row, length:] = torch.nan
    return Emissions(log_probs, frame_lengths)


@pytest.fixture(params=["alone", "lexicon", "words", "characters", "narrow"])
def search(request: pytest.FixtureRequest, tmp_path: Path) -> BeamSearch:
    words, characters = tmp_path / "words.arpa", tmp_path / "characters.arpa"
    words.write_text(BIGRAM)
    characters.write_text(BIGRAM.replace("BA", "B").replace("AB", "|"))
    arguments: dict[str, dict[str, Any]] = {
        "alone": {},
        "lexicon": {"lexicon": LEXICON},
        "words": {"lexicon": LEXICON, "ngram": str(words), "word_score": -1.0},
        "characters": {"ngram": str(characters)},
        "narrow": {"lexicon": LEXICON, "beam_size": 2, "beam_size_token": 2, "beam_threshold": 3.0},
    }
    return BeamSearch(**arguments[request.param])


def test_each_utterance_alone(search: BeamSearch) -> None:
    emissions = long_emissions()
    together = search(emissions, TOKENIZER, frame_shift=0.04)
    for row, length in enumerate(emissions.frame_lengths.tolist()):
        alone = Emissions(emissions.log_probs[row : row + 1, :length], emissions.frame_lengths[row : row + 1])
        assert search(alone, TOKENIZER, frame_shift=0.04) == [together[row]]
    assert together[3].text == "" and all(math.isfinite(word.confidence) for text in together for word in text.words)


def test_no_utterances(search: BeamSearch) -> None:
    assert search(Emissions(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.long)), TOKENIZER, frame_shift=1.0) == []


def test_equals_are_decided_alike(search: BeamSearch) -> None:
    # Every text is as likely as many others.
    one = search(Emissions(torch.full((1, 7, 4), 0.25).log(), torch.tensor([7])), TOKENIZER, frame_shift=1.0)
    for num in range(2, 8):
        same = Emissions(torch.full((num, 7, 4), 0.25).log(), torch.tensor([7] * num))
        assert search(same, TOKENIZER, frame_shift=1.0) == one * num
        assert copy.deepcopy(search)(same, TOKENIZER, frame_shift=1.0) == one * num


@pytest.mark.parametrize("beam_size", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_any_beam_writes_words_of_the_lexicon(seed: int, beam_size: int) -> None:
    emissions = long_emissions(seed=seed)
    for beam_size_token, beam_threshold in ((None, 50.0), (1, 50.0), (2, 1e-3), (9, 1e9)):
        decoder = BeamSearch(
            lexicon=LEXICON, beam_size=beam_size, beam_size_token=beam_size_token, beam_threshold=beam_threshold
        )
        for transcript in decoder(emissions, TOKENIZER, frame_shift=0.04):
            assert transcript.text == " ".join(word.text for word in transcript.words)
            assert set(transcript.text.split()) <= set(LEXICON)


@pytest.mark.parametrize("seed", range(5))
def test_a_narrow_beam_need_not_look_at_every_label(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CharacterTokenizer("ABCDEFGHIJ ")
    generator = torch.Generator().manual_seed(seed)
    log_probs = (2.0 * torch.randn(3, 30, tokenizer.size, generator=generator)).log_softmax(-1)
    emissions = Emissions(log_probs, torch.tensor([30, 20, 10]))
    decoder = BeamSearch(beam_size=4)
    found = decoder(emissions, tokenizer, frame_shift=1.0)
    search = decoder._search(tokenizer, log_probs.device)
    monkeypatch.setattr(search, "_labels_enough", None)
    assert decoder(emissions, tokenizer, frame_shift=1.0) == found


def test_only_the_best_labels_of_a_frame_may_follow() -> None:
    emissions = Emissions(torch.tensor([[[0.1, 0.5, 0.39, 0.01], [0.1, 0.5, 0.39, 0.01]]]).log(), torch.tensor([2]))
    for beam_size_token, text in ((None, "BA"), (2, "BA"), (1, "")):
        decoder = BeamSearch(lexicon=["BA"], beam_size_token=beam_size_token)
        assert decoder(emissions, TOKENIZER, frame_shift=1.0)[0].text == text


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
        ({"word_score": -1.0}, ValueError, "word_score -1.0 without a lexicon"),
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


def test_a_file_with_words_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffA\n1984\nOÜ\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the lexicon .*words\.txt has words .* cannot write, 2 of 3: 1984, OÜ"):
        BeamSearch(lexicon=str(path))(random_emissions(0), TOKENIZER, frame_shift=1.0)


def test_wrong_ngram(tmp_path: Path) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"ngram .*broken\.arpa cannot be read"):
        BeamSearch(lexicon=LEXICON, ngram=str(path))(random_emissions(0), TOKENIZER, frame_shift=1.0)


def test_a_lexicon_needs_a_space() -> None:
    with pytest.raises(ValueError, match="one token for the space"):
        BeamSearch(lexicon=["A"])(random_emissions(0), Pieces(), frame_shift=1.0)


def test_the_best_are_selected_and_of_equals_the_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0 + 1e-12, -torch.inf, 3.0, 2.0]], dtype=torch.float64)
    places, alive = selected(scores, 6, threshold=1.5)
    assert places.tolist() == [[1, 2, 4, 5, 0, 3]]
    assert alive.tolist() == [[True, True, True, True, False, False]]
    nothing, alive = selected(torch.full((1, 3), -torch.inf), 2, threshold=1.0)
    assert nothing.tolist() == [[0, 1]] and not alive.any()


def test_histories_are_told_apart() -> None:
    keys = torch.zeros(1, dtype=torch.long)
    for _ in range(6):
        keys = torch.cat([mixed(keys, torch.full_like(keys, label)) for label in range(8)])
    assert len(keys.unique()) == 8**6 and not bool((keys < 0).all())
