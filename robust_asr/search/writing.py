"""What a beam search may write, and what it is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robust_asr.search.ngram import NGram, WordScores
from robust_asr.search.trie import Trie
from robust_asr.text import Tokenizer, normalize


class Writing:
    """A trie and the worth of its words.

    Attributes:
        begin: the n-gram's state before the first word.
    """

    def __init__(
        self,
        trie: Trie,
        words: Sequence[str],
        *,
        ngram: NGram | None,
        ngram_weight: float,
        word_score: float,
        device: torch.device,
    ) -> None:
        self.trie = trie.to(device)
        self._worth = torch.where(self.trie.words >= 0, word_score, 0.0).double() if word_score else None
        self._ngram_weight = ngram_weight
        self._scores: WordScores | None = None
        self.begin = 0
        self._ahead = self._ahead_after = self._nothing = torch.zeros((), dtype=torch.double, device=device)
        if ngram is not None:
            numbers = ngram.numbers(words)
            self._ahead = trie.ahead(ngram_weight * ngram(torch.zeros_like(numbers), numbers)[0]).to(device)
            self._ahead_after = self._ahead[self.trie.targets]
            self._scores = WordScores(ngram.to(device), words)
            self.begin = self._scores.begin

    @property
    def has_ngram(self) -> bool:
        return self._scores is not None

    def ahead(self, nodes: Tensor) -> Tensor:
        """The best that the n-gram may still give a word below these nodes: else a long one looks cheap until it is complete."""
        return self._ahead[nodes] if self.has_ngram else self._nothing

    def ahead_after(self, edges: Tensor) -> Tensor:
        return self._ahead_after[edges] if self.has_ngram else self._nothing

    def worth(self, edges: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """What each edge adds to a score (nats), and the n-gram's state after it. Shape: both and the results (B, K, C)."""
        worth = self._nothing.expand_as(edges) if self._worth is None else self._worth[edges]
        if self._scores is None:
            return worth, states
        words = self.trie.words[edges]
        if edges.is_cuda:
            # Asked for every edge: to list those that end a word, the host would wait for the device in every frame.
            ending = words >= 0
            scores, following = self._scores(states.flatten(), words.clamp(min=0).flatten())
            worth = torch.where(ending, worth + self._ngram_weight * scores.view_as(worth), worth)
            return worth, torch.where(ending, following.view_as(states), states)
        places = (words >= 0).nonzero(as_tuple=True)
        scores, following = self._scores(states[places], words[places])
        worth = worth.index_put(places, worth[places] + self._ngram_weight * scores)
        return worth, states.index_put(places, following)

    def end_worth(self, states: Tensor) -> Tensor:
        """What the end of the text adds to a score. Shape: (B, K) -> (B, K)."""
        if self._scores is None:
            return torch.zeros_like(states, dtype=torch.double)
        return self._ngram_weight * self._scores.ends(states)


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of texts, normalised: the most frequent first, equals in the order of the alphabet."""
    counts = Counter(word for text in texts for word in normalize(text).split())
    return sorted(counts, key=lambda word: (-counts[word], word))


def lexicon_words(lexicon: Sequence[str] | str, tokenizer: Tokenizer) -> list[str]:
    """``words_of`` a lexicon, which is texts or the path of a file of them.

    Errors: ValueError, which names the file, for a lexicon that is empty or has words that the tokenizer cannot write.
    """
    name = f"the lexicon {lexicon}" if isinstance(lexicon, str) else "the lexicon"
    words = words_of(
        Path(lexicon).read_text(encoding="utf-8-sig").splitlines() if isinstance(lexicon, str) else lexicon
    )
    if not words:
        raise ValueError(f"{name} holds no word")
    if wrong := [word for word in words if tokenizer.unwritable(word)]:
        raise ValueError(
            f"{name} has words that the recogniser cannot write, {len(wrong)} of {len(words)}: {', '.join(wrong[:5])}"
        )
    return words


def check_is_file(path: object, owner: str) -> None:
    """FileNotFoundError for a path, which is a string, of no file."""
    if isinstance(path, str) and not Path(path).is_file():
        raise FileNotFoundError(f"{owner}: there is no file {path}")
