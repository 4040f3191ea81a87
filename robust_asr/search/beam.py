"""Beam search over CTC emissions, with a lexicon, an n-gram, both or neither.

Legend: B utterances, F frames, V labels, K hypotheses, C edges a hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_asr.decoding import Decoder, align
from robust_asr.search.alignment import best_labels
from robust_asr.search.hypotheses import along, mixed, offered, prepared, selected, traced
from robust_asr.search.ngram import read_arpa
from robust_asr.search.trie import ROOT, Trie, trie_of
from robust_asr.search.writing import Writing, check_is_file, texts_of, words_of
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript


class BeamSearch(Decoder):
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
        spelled = self._search(tokenizer, log_probs.device)(log_probs)
        silence = None if self.lexicon is None else _separator(tokenizer)
        labels = best_labels(log_probs, frame_lengths, spelled, blank=tokenizer.blank, silence=silence)
        return align(labels, Emissions(log_probs, frame_lengths), tokenizer, frame_shift=frame_shift)

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
            words = words_of(texts_of(self.lexicon))
            if not words:
                raise ValueError("the lexicon holds no word")
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
    """Prefix beam search among the words of a trie. Called, it gives the tokens of the best text of each utterance.

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

    def __call__(self, log_probs: Tensor) -> list[list[int]]:
        """Shape: (B, F, V) -> B lists of tokens."""
        offers = offered(log_probs, blank=self._blank, best=self._size_token)
        beam = self._start(log_probs)
        parents, words = [], []
        for frame in range(log_probs.shape[1]):
            beam, places, written = self._step(beam, log_probs[:, frame], offers[:, frame])
            parents.append(places)
            words.append(written)
        best, last_words = self._finish(beam)
        rows = torch.cat([along(traced(parents, best), words), last_words[:, None]], 1).tolist()
        texts = [[token for word in row if word >= 0 for token in self._spellings[word]] for row in rows]
        # The last word needs no space after it.
        return [text[:-1] if self._silence is not None else text for text in texts]

    def _start(self, log_probs: Tensor) -> Beam:
        shape = (log_probs.shape[0], self._size)
        never = torch.full(shape, -torch.inf, dtype=log_probs.dtype, device=log_probs.device)
        nothing = torch.zeros(shape, dtype=torch.long, device=log_probs.device)
        silent = never.clone()
        silent[:, 0] = 0.0
        return Beam(
            silent=silent,
            heard=never,
            gain=torch.zeros_like(never),
            nodes=nothing + ROOT,
            labels=nothing + (self._blank if self._silence is None else self._silence),
            edges=nothing,
            states=nothing + self._writing.begin,
            keys=(nothing + _NO_KEY).where(silent.isinf(), nothing),
            parent_keys=nothing + _NO_PARENT,
        )

    def _step(self, beam: Beam, log_probs: Tensor, offers: Tensor) -> tuple[Beam, Tensor, Tensor]:
        """A frame later: the beam, the place of each hypothesis in the beam before, and the word it wrote (-1: none)."""
        total = torch.logaddexp(beam.silent, beam.heard)
        silent = total + log_probs[:, self._blank, None]
        again = beam.heard if self._silence is None else total.where(beam.labels == self._silence, beam.heard)
        heard = again + log_probs.gather(1, beam.labels)
        edges = self._trie.edges(beam.nodes)
        labels = self._trie.labels[edges]
        worth, states = self._writing.worth(edges, beam.states[..., None].expand_as(edges))
        # After the same label only what ended in a blank goes on.
        sources = torch.where(labels == beam.labels[..., None], beam.silent[..., None], total[..., None])
        longer = sources + offers.gather(1, labels.flatten(1)).view_as(worth) + worth
        # A text whose parent is in the beam is reached from there too, and then no new one.
        known, parents = (beam.parent_keys[:, :, None] == beam.keys[:, None, :]).max(2)
        doubled = beam.labels == beam.labels.gather(1, parents)
        source = torch.where(doubled, beam.silent.gather(1, parents), total.gather(1, parents))
        reached = source + offers.gather(1, beam.labels) + beam.gain
        heard = torch.where(known, torch.logaddexp(heard, reached), heard)
        slots = parents * edges.shape[2] + self._trie.slots(beam.edges, beam.nodes.gather(1, parents))
        longer = torch.nn.functional.pad(longer.flatten(1), (0, 1), value=-torch.inf)
        longer.scatter_(1, slots.where(known, longer.shape[1] - 1), -torch.inf)
        return self._best(beam, silent, heard, longer, edges, worth, states)

    def _best(
        self, beam: Beam, silent: Tensor, heard: Tensor, longer: Tensor, edges: Tensor, worth: Tensor, states: Tensor
    ) -> tuple[Beam, Tensor, Tensor]:
        ahead = self._writing.ahead
        edges = torch.nn.functional.pad(edges.flatten(1), (0, 1), value=len(self._trie.labels) - 1)
        staying = torch.logaddexp(silent, heard) + ahead[beam.nodes]
        places, alive = selected(
            torch.cat([staying, longer + ahead[self._trie.targets[edges]]], 1), self._size, threshold=self._threshold
        )
        grown, slots = places >= self._size, (places - self._size).clamp(min=0)
        parents = torch.where(grown, (slots // (longer.shape[1] // self._size)).clamp(max=self._size - 1), places)
        chosen = edges.gather(1, slots)
        labels = self._trie.labels[chosen]
        never = torch.full_like(silent, -torch.inf)
        old_keys = beam.keys.gather(1, parents)
        keys = torch.where(grown, mixed(old_keys, labels), old_keys)
        inner = slots.clamp(max=longer.shape[1] - 2)
        return (
            Beam(
                silent=torch.where(alive & ~grown, silent.gather(1, parents), never),
                heard=torch.where(alive, torch.where(grown, longer.gather(1, slots), heard.gather(1, parents)), never),
                gain=torch.where(grown, worth.flatten(1).gather(1, inner), beam.gain.gather(1, parents)),
                nodes=torch.where(grown, self._trie.targets[chosen], beam.nodes.gather(1, parents)),
                labels=torch.where(grown, labels, beam.labels.gather(1, parents)),
                edges=torch.where(grown, chosen, beam.edges.gather(1, parents)),
                states=torch.where(grown, states.flatten(1).gather(1, inner), beam.states.gather(1, parents)),
                keys=keys.where(alive, _NO_KEY),
                parent_keys=torch.where(grown, old_keys, beam.parent_keys.gather(1, parents)).where(alive, _NO_PARENT),
            ),
            parents,
            self._trie.words[chosen].where(grown & alive, -1),
        )

    def _finish(self, beam: Beam) -> tuple[Tensor, Tensor]:
        """The best text's place in the beam, and the word that ends with the audio (-1: none). Shape: (B,), (B,)."""
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
        best = selected(total.where(incomplete, scores), 1, threshold=self._threshold)[0]
        return best[:, 0], words.gather(1, best)[:, 0].where(~incomplete[:, 0], -1)


# Of places in the beam that hold no hypothesis: what has no key is nobody's parent.
_NO_KEY, _NO_PARENT = -1, -2


def _separator(tokenizer: Tokenizer) -> int:
    """The token that stands between words."""
    tokens = [token for token in range(tokenizer.size) if tokenizer.pieces([token]) == [" "]]
    if len(tokens) != 1:
        raise ValueError(f"a lexicon needs a tokenizer with one token for the space, this one has {len(tokens)}")
    return tokens[0]
