"""Words from phones: beam search with a lexicon, and an n-gram where there is one (extra ``beam``)."""

from __future__ import annotations

import math
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.search.beam import BeamSearch, texts_of, words_of
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript, Word

# Nats: below what a model knows, above what float32 rounds of the score of a long utterance.
_COST = 1e-3


class PhoneBeamSearch(BeamSearch):
    """The words of the best alignment that a beam finds in the emissions of a recogniser of phones.

    As ``BeamSearch``, but over the pronunciations of the recogniser's own ``Lexicon``, with any silence between words, and by
    the best alignment instead of their sum, as WFST decoders of phones have it. torchaudio's search (flashlight) lets no
    phone go on once its word is complete, and forgets then which phone that was; ``spellings`` says how more labels than the
    recogniser has make up for both. It costs an alignment a few thousandths of a nat, and one pair of texts stays
    confused: a word of a single phone said twice, where the second takes exactly two frames and runs into the next word
    with neither silence nor a blank, may be written once.

    ``lexicon`` holds the words to search among, or whole texts, or is the path of a file of them. What it does not have is
    never written. Only an n-gram can tell words apart that sound alike: without one the most frequent of the lexicon is
    written, of equals the first of the alphabet.

    Units and errors are those of ``BeamSearch``; ValueError too for a recogniser that writes no phones.
    """

    def __init__(
        self,
        *,
        lexicon: list[str] | str,
        ngram: str | None = None,
        ngram_weight: float = 2.0,
        word_score: float = 0.0,
        beam_size: int = 50,
        beam_size_token: int | None = None,
        beam_threshold: float = 50.0,
    ) -> None:
        super().__init__(
            lexicon=lexicon,
            ngram=ngram,
            ngram_weight=ngram_weight,
            word_score=word_score,
            beam_size=beam_size,
            beam_size_token=beam_size_token,
            beam_threshold=beam_threshold,
        )

    def __call__(self, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
        if not isinstance(tokenizer, Lexicon):
            raise ValueError(
                f"PhoneBeamSearch searches among phones, this recogniser writes {type(tokenizer).__name__}"
            )
        scores, frame_lengths = _relabelled(emissions), (emissions.frame_lengths + 1).tolist()
        search, transcripts = self._search(tokenizer), []
        for row, length in enumerate(frame_lengths):
            best = search.decoder.decode(scores[row].data_ptr(), length, scores.shape[2])[0]
            # One state before the first frame.
            labels, words = best.tokens[1 : length + 1], best.words[1 : length + 1]
            names = [search.word_dict.get_entry(word) if word >= 0 else None for word in words]
            transcripts.append(_transcript(labels, names, scores[row], tokenizer, frame_shift))
        return transcripts

    def _build(self, tokenizer: Lexicon) -> Any:
        names = [str(label) for label in range(4 * tokenizer.size)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "words"
            path.write_text(self._spelled(tokenizer), encoding="utf-8")
            return self._flashlight(
                lexicon=str(path),
                tokens=names,
                beam_size_token=None if self.beam_size_token is None else 4 * self.beam_size_token,
                log_add=False,
                blank_token=names[tokenizer.blank],
                sil_token=names[tokenizer.silence],
            )

    def _spelled(self, tokenizer: Lexicon) -> str:
        words = words_of(texts_of(self.lexicon))
        if not words:
            raise ValueError("the lexicon of the search holds no word")
        spelled = [
            (" ".join(map(str, labels)), word)
            for word, variants in tokenizer.pronunciations(words).items()
            for phones in variants
            for labels in spellings(phones, tokenizer)
        ]
        if self.ngram is None:
            # Equal scores are put in the order of addresses in memory: each run would write another of them.
            spelled = list(dict(reversed(spelled)).items())
        return "".join(f"{word} {labels}\n" for labels, word in spelled)


def spellings(phones: tuple[int, ...], lexicon: Lexicon) -> list[list[int]]:
    """The labels of a pronunciation, from which the search may write its word.

    Every label comes in four kinds: plain, marked, and two more that cost a little (``_relabelled``). A word begins with the
    mark of its first phone. It ends with a blank (the marked one) or silence, before which its last phone goes on as
    long as it likes; or without either, with the mark of its last phone in that phone's last frame. As no label follows
    itself without a blank, two words that meet in one phone have one between them.

    The costs decide where the search cannot tell. Between the frames of one last phone it also allows a blank, which must
    lose against two words; and after a phone of two frames that is a word it allows the same phone again, which must
    lose against a longer one.
    """
    size = lexicon.size
    labels = [size + phones[0]]
    for before, phone in pairwise(phones):
        # The same phone again needs a blank in between, which only the same label asks for.
        labels.append(labels[-1] if phone == before else phone)
    last = phones[-1]
    plain, marked, cheap, dear = last, size + last, 2 * size + last, 3 * size + last
    found = [[*labels, size + lexicon.blank], [*labels, lexicon.silence]]
    if len(phones) == 1:
        found += [[marked], [marked, dear], [marked, cheap, marked]]
    elif labels[-1] == plain and phones[-2] != last:
        found += [[*labels[:-1], marked], [*labels[:-1], cheap, marked]]
    return found


def _relabelled(emissions: Emissions) -> Tensor:
    """Scores of the four kinds of labels, and one frame more in which the blank is certain. Shape: (B, F + 1, 4 V)."""
    scores = functional.pad(emissions.log_probs.float().cpu(), (0, 0, 0, 1))
    rows = torch.arange(len(scores))
    # Not minus infinity, of which the search would make nan.
    scores[rows, emissions.frame_lengths.cpu()] = -1e4
    scores[rows, emissions.frame_lengths.cpu(), 0] = 0.0
    return torch.cat([scores, scores, scores - _COST, scores - 2 * _COST], -1).contiguous()


def _transcript(
    labels: list[int], names: list[str | None], scores: Tensor, lexicon: Lexicon, frame_shift: float
) -> Transcript:
    """Labels and the words that end, frame by frame. Shape: scores (F + 1, 4 V)."""
    quiet = {lexicon.blank, lexicon.size + lexicon.blank, lexicon.silence}
    words, spoken = [], []
    for frame, (label, name) in enumerate(zip(labels, names, strict=True)):
        if label not in quiet:
            spoken.append((frame, float(scores[frame, label])))
        if name is not None:
            confidence = math.exp(sum(score for _, score in spoken) / len(spoken))
            words.append(Word(name, spoken[0][0] * frame_shift, (spoken[-1][0] + 1) * frame_shift, confidence))
            spoken = []
    return Transcript(" ".join(word.text for word in words), tuple(words))
