"""Beam search over CTC emissions, with a lexicon, an n-gram, both or neither.

Legend: B utterances, F frames, V labels, K hypotheses, C edges a hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robust_asr.search.alignment import best_labels
from robust_asr.search.base import FrameSearch
from robust_asr.search.greedy import align
from robust_asr.search.hypotheses import along, mixed, offered, prepared, selected, traced
from robust_asr.search.ngram import read_arpa
from robust_asr.search.trie import ROOT, Trie, trie_of
from robust_asr.search.writing import Writing, check_is_file, lexicon_words
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript


class BeamSearch(FrameSearch):
    """The text of the highest total probability that a beam finds (prefix search: Graves et al. 2006; Hannun et al. 2014).

    Without a lexicon and an n-gram the total probability of a text is the sum over its alignments, as the CTC loss has
    it. With a lexicon only its complete words are written, with any number of spaces between them. An n-gram multiplies its
    probability in, by words with a lexicon, else by tokens, where a space is written ``|``. Word times are those of the
    best alignment of the text.

    A whole batch is searched at once, on the device of the emissions. What is built of the lexicon and the n-gram is built at
    the first call and is no part of a pickle or a copy.

    ``lexicon`` holds words, or whole texts such as the training transcripts, or is the path of a file of them.
    ``ngram`` is the path of an ARPA file. ``beam_size_token`` is how many labels may follow in a frame: the best; by default
    all.

    Units: ``ngram_weight`` scales the n-gram's log10 probabilities, ``word_score`` is added for each word of the lexicon
    (nats), ``beam_threshold`` (nats) drops what is so far behind the best.
    Errors: FileNotFoundError; ValueError names a word that the tokenizer cannot write, or the line of an n-gram that cannot be
    read.
    """

    file_arguments = ("lexicon", "ngram")

    def __init__(
        self,
        *,
        lexicon: list[str] | str | None = None,
        ngram: str | None = None,
        ngram_weight: float = 2.0,
        word_score: float = 0.0,
        beam_size: int = 50,
        beam_size_token: int | None = None,
        beam_threshold: float = 50.0,
    ) -> None:
        if beam_size < 1 or (beam_size_token is not None and beam_size_token < 1) or not beam_threshold > 0:
            raise ValueError(
                "beam_size, beam_size_token and beam_threshold must be positive, got "
                f"{beam_size}, {beam_size_token} and {beam_threshold}"
            )
        if word_score and lexicon is None:
            raise ValueError(f"word_score {word_score} without a lexicon, which says what a word is: give one, or 0")
        for path in (lexicon, ngram):
            check_is_file(path, type(self).__name__)
        self.lexicon = lexicon
        self.ngram = ngram
        self.ngram_weight = ngram_weight
        self.word_score = word_score
        self.beam_size = beam_size
        self.beam_size_token = beam_size_token
        self.beam_threshold = beam_threshold
        self._built: tuple[Tokenizer, torch.device, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}

    def __call__(self, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
        log_probs, frame_lengths = prepared(emissions, blank=tokenizer.blank)
        spelled, _ = self._search(tokenizer, log_probs.device)(log_probs)
        silence = None if self.lexicon is None else _separator(tokenizer)
        labels = best_labels(log_probs, frame_lengths, spelled, blank=tokenizer.blank, silence=silence)
        return align(labels, Emissions(log_probs, frame_lengths), tokenizer, frame_shift=frame_shift)

    def words(self, tokenizer: Tokenizer) -> list[str]:
        return [] if self.lexicon is None else lexicon_words(self.lexicon, tokenizer)

    def _search(self, tokenizer: Tokenizer, device: torch.device) -> Any:
        if self._built is None or self._built[0] is not tokenizer or self._built[1] != device:
            self._built = (tokenizer, device, self._build(tokenizer, device))
        return self._built[2]

    def _build(self, tokenizer: Tokenizer, device: torch.device) -> PrefixSearch:
        if self.lexicon is None:
            # Every token is a word of its own.
            spellings = [[token] for token in range(tokenizer.size) if token != tokenizer.blank]
            words = [tokenizer.pieces(tokens)[0].replace(" ", "|") or f"<{tokens[0]}>" for tokens in spellings]
            silence = None
        else:
            silence = _separator(tokenizer)
            words = lexicon_words(self.lexicon, tokenizer)
            spellings = [[*tokenizer.encode(word), silence] for word in words]
        trie = trie_of(zip(spellings, range(len(words)), strict=True), blank=tokenizer.blank)
        return PrefixSearch(
            self._writing(trie, words, device),
            spellings,
            blank=tokenizer.blank,
            silence=silence,
            size=self.beam_size,
            size_token=self.beam_size_token,
            threshold=self.beam_threshold,
        )

    def _writing(self, trie: Trie, words: list[str], device: torch.device) -> Writing:
        return Writing(
            trie,
            words,
            ngram=None if self.ngram is None else read_arpa(self.ngram),
            ngram_weight=self.ngram_weight,
            word_score=self.word_score,
            device=device,
        )


@dataclass(frozen=True)
class Beam:
    """Hypotheses: texts, of which each is in the beam once.

    Shape: all (B, K).
    Units: silent and heard are the log-probabilities of all alignments that end in a blank and in the last label; gain is
    what the text is worth above that of its parent, the text without its last label.
    """

    silent: Tensor
    heard: Tensor
    gain: Tensor
    nodes: Tensor
    labels: Tensor
    edges: Tensor
    states: Tensor
    keys: Tensor
    parent_keys: Tensor


class PrefixSearch:
    """Prefix beam search among the words of a trie: the tokens of the best text of each utterance, and its score.

    ``silence`` ends the words and may be repeated between them.
    """

    def __init__(
        self,
        writing: Writing,
        spellings: list[list[int]],
        *,
        blank: int,
        silence: int | None,
        size: int,
        size_token: int | None,
        threshold: float,
    ) -> None:
        self._writing, self._trie = writing, writing.trie
        self._spellings = spellings
        self._blank, self._silence = blank, silence
        self._size, self._size_token, self._threshold = size, size_token, threshold
        # A text goes on with as many labels as the beam has places, and perhaps with its last again: others come too late,
        # unless an n-gram prefers them.
        self._labels_enough = None if writing.has_ngram else size + 1

    def __call__(self, log_probs: Tensor) -> tuple[list[list[int]], Tensor]:
        """Shape: (B, F, V) -> B lists of tokens, (B,). Units: nats, with what the words are worth."""
        offers, best = offered(log_probs, blank=self._blank, num=self._size_token)
        any_label = torch.searchsorted(self._trie.labels[:-1], best[..., : self._labels_enough].contiguous())
        beam = self._start(log_probs)
        parents, words = [], []
        for frame in range(log_probs.shape[1]):
            edges = self._edges(beam, any_label[:, frame])
            beam, places, written = self._step(beam, log_probs[:, frame], offers[:, frame], edges)
            parents.append(places)
            words.append(written)
        best, last_words, scores = self._finish(beam)
        rows = torch.cat([along(traced(parents, best), words), last_words[:, None]], 1).tolist()
        texts = [[token for word in row if word >= 0 for token in self._spellings[word]] for row in rows]
        # The last word needs no space after it.
        return [text[:-1] if self._silence is not None else text for text in texts], scores

    def _start(self, log_probs: Tensor) -> Beam:
        shape = (log_probs.shape[0], self._size)
        never = torch.full(shape, -torch.inf, dtype=log_probs.dtype, device=log_probs.device)
        nothing = torch.zeros(shape, dtype=torch.long, device=log_probs.device)
        silent = never.clone()
        silent[:, 0] = 0.0
        return Beam(
            silent=silent,
            heard=never,
            gain=never,
            nodes=nothing + ROOT,
            labels=nothing + (self._blank if self._silence is None else self._silence),
            edges=nothing,
            states=nothing + self._writing.begin,
            keys=(nothing + _NO_KEY).where(silent.isinf(), nothing),
            parent_keys=nothing + _NO_PARENT,
        )

    def _edges(self, beam: Beam, any_label: Tensor) -> Tensor:
        """How each hypothesis may go on. Shape: edges without a lexicon, (B, C) -> (B, K, C)."""
        if self._trie.flat:
            return any_label[:, None].expand(-1, self._size, -1)
        return self._trie.edges(beam.nodes)

    def _step(self, beam: Beam, log_probs: Tensor, offers: Tensor, edges: Tensor) -> tuple[Beam, Tensor, Tensor]:
        """A frame later: the beam, the place of each hypothesis in the beam before, and the word it wrote (-1: none)."""
        total = torch.logaddexp(beam.silent, beam.heard)
        silent = total + log_probs[:, self._blank, None]
        again = beam.heard if self._silence is None else total.where(beam.labels == self._silence, beam.heard)
        heard = again + log_probs.gather(1, beam.labels)
        labels = self._trie.labels[edges]
        worth, states = self._writing.worth(edges, beam.states[..., None].expand_as(edges))
        # After the same label only what ended in a blank goes on.
        sources = torch.where(labels == beam.labels[..., None], beam.silent[..., None], total[..., None])
        longer = sources + offers.gather(1, labels.flatten(1)).view_as(worth) + worth
        # A text whose parent is in the beam is reached from there too, and then is no new one.
        known, parents = (beam.parent_keys[:, :, None] == beam.keys[:, None, :]).max(2)
        doubled = beam.labels == beam.labels.gather(1, parents)
        source = torch.where(doubled, beam.silent.gather(1, parents), total.gather(1, parents))
        reached = source + offers.gather(1, beam.labels) + beam.gain
        heard = torch.where(known, torch.logaddexp(heard, reached), heard)
        same = edges.gather(1, parents[..., None].expand_as(edges)) == beam.edges[..., None]
        found, slots = (same & known[..., None]).max(2)
        longer = _without(longer.flatten(1), parents * edges.shape[2] + slots, found)
        edges = edges.flatten(1)
        ranks = [torch.logaddexp(silent, heard) + self._writing.ahead(beam.nodes)]
        ranks.append(longer + self._writing.ahead_after(edges))
        places, alive = selected(torch.cat(ranks, 1), self._size, threshold=self._threshold)
        grown, slots = places >= self._size, (places - self._size).clamp(min=0)
        parents = torch.where(grown, slots // labels.shape[2], places)
        staying = _of(replace(beam, silent=silent, heard=heard), parents)
        edges = edges.gather(1, slots)
        growing = Beam(
            silent=torch.full_like(silent, -torch.inf),
            heard=longer.gather(1, slots),
            gain=worth.flatten(1).gather(1, slots),
            nodes=self._trie.targets[edges],
            labels=self._trie.labels[edges],
            edges=edges,
            states=states.flatten(1).gather(1, slots),
            keys=mixed(staying.keys, self._trie.labels[edges]),
            parent_keys=staying.keys,
        )
        words = self._trie.words[edges].where(grown & alive, -1)
        return _alive(_chosen(grown, growing, staying), alive), parents, words

    def _finish(self, beam: Beam) -> tuple[Tensor, Tensor, Tensor]:
        """The best text's place in the beam, the word that ends with the audio (-1: none), and the score. Shape: all (B,)."""
        total = torch.logaddexp(beam.silent, beam.heard)
        edges = self._trie.edges(beam.nodes)
        ended, slots = (self._trie.words[edges] >= 0).max(2)
        edges = edges.gather(2, slots[..., None])
        worth, states = self._writing.worth(edges, beam.states[..., None])
        complete = beam.nodes == ROOT
        words = torch.where(~complete & ended, self._trie.words[edges[..., 0]], -1)
        ending = words >= 0
        states = torch.where(ending, states[..., 0], beam.states)
        keys = torch.where(ending, mixed(beam.keys, self._trie.labels[edges[..., 0]]), beam.keys)
        scores = total + torch.where(ending, worth[..., 0], 0.0) + self._writing.end_worth(states)
        scores = scores.where(complete | ending, -torch.inf)
        # With and without a space at the end it is the same text.
        scores = scores[:, None, :].where(keys[:, :, None] == keys[:, None, :], -torch.inf).logsumexp(2)
        # A beam without a complete word at the end writes those before.
        incomplete = scores.isinf().all(1, keepdim=True)
        scores = total.where(incomplete, scores)
        best = selected(scores, 1, threshold=self._threshold)[0]
        words = words.where(~incomplete, -1)
        return best[:, 0], words.gather(1, best)[:, 0], scores.gather(1, best)[:, 0]


def _without(scores: Tensor, places: Tensor, taken: Tensor) -> Tensor:
    """Scores with minus infinity at the places that are taken. Shape: (B, N), (B, K), (B, K) -> (B, N)."""
    # What is not taken writes one past the end.
    one_more = torch.nn.functional.pad(scores, (0, 1))
    return one_more.scatter_(1, places.where(taken, scores.shape[1]), -torch.inf)[:, :-1]


def _of(beam: Beam, places: Tensor) -> Beam:
    return Beam(**{name: value.gather(1, places) for name, value in vars(beam).items()})


def _chosen(mask: Tensor, first: Beam, second: Beam) -> Beam:
    return Beam(**{name: value.where(mask, getattr(second, name)) for name, value in vars(first).items()})


def _alive(beam: Beam, alive: Tensor) -> Beam:
    return replace(
        beam,
        silent=beam.silent.where(alive, -torch.inf),
        heard=beam.heard.where(alive, -torch.inf),
        keys=beam.keys.where(alive, _NO_KEY),
        parent_keys=beam.parent_keys.where(alive, _NO_PARENT),
    )


# Of places in the beam that hold no hypothesis: what has no key is nobody's parent.
_NO_KEY, _NO_PARENT = -1, -2


def _separator(tokenizer: Tokenizer) -> int:
    """The token that stands between words."""
    tokens = [token for token in range(tokenizer.size) if tokenizer.pieces([token]) == [" "]]
    if len(tokens) != 1:
        raise ValueError(f"a lexicon needs a tokenizer with one token for the space, this one has {len(tokens)}")
    return tokens[0]
