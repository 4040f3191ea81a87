"""Words from phones: beam search with a lexicon, and an n-gram where there is one.

Legend: B utterances, F frames, V labels, K hypotheses, C edges a hypothesis, M candidates looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.search.beam import BeamSearch
from robust_asr.search.hypotheses import along, mixed, offered, prepared, selected, traced
from robust_asr.search.trie import ROOT, trie_of
from robust_asr.search.writing import Writing, lexicon_words
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript, Word


class PhoneBeamSearch(BeamSearch):
    """The words of the best alignment that a beam finds in the emissions of a recogniser of phones.

    As ``BeamSearch``, but over the pronunciations of the recogniser's own ``Lexicon``, with any silence between words, and by
    the best alignment instead of their sum, as WFST decoders of phones have it.

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
            kind = type(tokenizer).__name__
            raise ValueError(f"{type(self).__name__} searches among phones, this recogniser writes {kind}")
        log_probs, frame_lengths = prepared(emissions, blank=tokenizer.blank)
        search = self._search(tokenizer, log_probs.device)
        return search(log_probs, frame_lengths.tolist(), frame_shift=frame_shift)

    def _build(self, tokenizer: Lexicon, device: torch.device) -> AlignmentSearch:
        words = lexicon_words(self.lexicon, tokenizer)
        said = tokenizer.pronunciations(words)
        spellings = [(phones, number) for number, word in enumerate(words) for phones in said[word]]
        if self.ngram is None:
            # Of words that sound alike the first, which is the most frequent.
            spellings = list(dict(reversed(spellings)).items())
        trie = trie_of(spellings, loops=[tokenizer.silence], blank=tokenizer.blank)
        return AlignmentSearch(
            self._writing(trie, words, device),
            words,
            blank=tokenizer.blank,
            silence=tokenizer.silence,
            size=self.beam_size,
            size_token=self.beam_size_token,
            threshold=self.beam_threshold,
        )


@dataclass(frozen=True)
class Beam:
    """Hypotheses: words, where in the trie the next one is, and how the frame ended, of which each is in the beam once.

    Shape: all (B, K).
    Units: scores are the log-probabilities of the best alignment; silent says whether it ends in a blank.
    """

    scores: Tensor
    silent: Tensor
    nodes: Tensor
    labels: Tensor
    states: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Steps:
    """What the hypotheses of a frame did. Shape: all (B, K); parents are places in the beam before, words -1 for none."""

    parents: Tensor
    labels: Tensor
    started: Tensor
    words: Tensor


class AlignmentSearch:
    """Viterbi search among the words of a trie, in a beam. A word is complete with its last phone, which may go on."""

    def __init__(
        self,
        writing: Writing,
        words: list[str],
        *,
        blank: int,
        silence: int,
        size: int,
        size_token: int | None,
        threshold: float,
    ) -> None:
        self._writing, self._trie, self._words = writing, writing.trie, words
        self._blank, self._silence = blank, silence
        self._size, self._size_token, self._threshold = size, size_token, threshold

    def __call__(self, log_probs: Tensor, frame_lengths: list[int], *, frame_shift: float) -> list[Transcript]:
        """Shape: (B, F, V) -> B transcripts."""
        offers, _ = offered(log_probs, blank=self._blank, num=self._size_token)
        beam, steps = self._start(log_probs), []
        for frame in range(log_probs.shape[1]):
            beam, step = self._step(beam, log_probs[:, frame], offers[:, frame])
            steps.append(step)
        path = traced([step.parents for step in steps], self._finish(beam))
        labels, started, words = (
            along(path, [getattr(step, name) for step in steps]) for name in ("labels", "started", "words")
        )
        heard = log_probs.gather(2, labels[..., None])[..., 0]
        rows = zip(labels.tolist(), started.tolist(), words.tolist(), heard.tolist(), frame_lengths, strict=True)
        return [self._transcript(list(zip(*frames, strict=True))[:length], frame_shift) for *frames, length in rows]

    def _start(self, log_probs: Tensor) -> Beam:
        shape = (log_probs.shape[0], self._size)
        nothing = torch.zeros(shape, dtype=torch.long, device=log_probs.device)
        scores = torch.full(shape, -torch.inf, dtype=log_probs.dtype, device=log_probs.device)
        scores[:, 0] = 0.0
        return Beam(
            scores=scores,
            silent=torch.ones_like(nothing, dtype=torch.bool),
            nodes=nothing + ROOT,
            labels=nothing + self._blank,
            states=nothing + self._writing.begin,
            keys=nothing,
        )

    def _step(self, beam: Beam, log_probs: Tensor, offers: Tensor) -> tuple[Beam, Steps]:
        size = self._size
        resting = beam.scores + log_probs[:, self._blank, None]
        lasting = beam.scores.masked_fill(beam.silent, -torch.inf) + log_probs.gather(1, beam.labels)
        edges = self._trie.edges(beam.nodes)
        labels = self._trie.labels[edges]
        worth, states = self._writing.worth(edges, beam.states[..., None].expand_as(edges))
        # The same phone again needs a blank in between.
        allowed = beam.silent[..., None] | (labels != beam.labels[..., None])
        longer = beam.scores[..., None].where(allowed, -torch.inf) + worth
        longer = longer.flatten(1) + offers.gather(1, labels.flatten(1))
        edges, states = edges.flatten(1), states.flatten(1)
        here = self._writing.ahead(beam.nodes)
        scores = torch.cat([resting, lasting, longer], 1)
        ranks = torch.cat([resting + here, lasting + here, longer + self._writing.ahead_after(edges)], 1)
        # More than the beam holds, since alignments that only differ in the past are the same hypothesis.
        places, alive = selected(ranks, min(2 * size, ranks.shape[1]), threshold=self._threshold)
        grown, slots = places >= 2 * size, (places - 2 * size).clamp(min=0)
        parents = torch.where(grown, slots // (edges.shape[1] // size), places % size)
        chosen = edges.gather(1, slots)
        words = self._trie.words[chosen].where(grown, -1)
        keys = beam.keys.gather(1, parents)
        found = Beam(
            scores=scores.gather(1, places).where(alive, -torch.inf),
            silent=places < size,
            nodes=torch.where(grown, self._trie.targets[chosen], beam.nodes.gather(1, parents)),
            labels=torch.where(grown, self._trie.labels[chosen], beam.labels.gather(1, parents)),
            states=torch.where(grown, states.gather(1, slots), beam.states.gather(1, parents)),
            keys=torch.where(words >= 0, mixed(keys, words), keys),
        )
        steps = Steps(parents, found.labels.where(~found.silent, self._blank), grown, words)
        repeated = self._repeated(found)
        found = replace(found, scores=found.scores.masked_fill(repeated, -torch.inf))
        kept = repeated.byte().sort(dim=1, stable=True).indices[:, :size]
        return _of(found, kept), _of(steps, kept)

    def _repeated(self, beam: Beam) -> Tensor:
        """Whether a hypothesis stands in the row before, better. Shape: (B, M)."""
        identities = mixed(beam.keys, (beam.labels * len(self._trie.first) + beam.nodes) * 2 + beam.silent)
        ordered, order = identities.sort(dim=1, stable=True)
        repeated = torch.zeros_like(ordered, dtype=torch.bool)
        repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        return torch.zeros_like(repeated).scatter_(1, order, repeated)

    def _finish(self, beam: Beam) -> Tensor:
        """The place of the best. Shape: (B,)."""
        scores = (beam.scores + self._writing.end_worth(beam.states)).where(beam.nodes == ROOT, -torch.inf)
        # A beam without a complete word at the end writes those before.
        scores = beam.scores.where(scores.isinf().all(1, keepdim=True), scores)
        return selected(scores, 1, threshold=self._threshold)[0][:, 0]

    def _transcript(self, frames: list[tuple[int, bool, int, float]], frame_shift: float) -> Transcript:
        """Frames as (label, whether it begins there, number of the word that it completes, log-probability)."""
        words: list[Word] = []
        spoken: list[tuple[int, float]] = []
        complete = -1
        for frame, (label, started, word, heard) in enumerate([*frames, (self._blank, True, -1, 0.0)]):
            if started:
                if complete >= 0:
                    confidence = math.exp(sum(score for _, score in spoken) / len(spoken))
                    start, end = spoken[0][0] * frame_shift, (spoken[-1][0] + 1) * frame_shift
                    words.append(Word(self._words[complete], start, end, confidence))
                    spoken = []
                complete = word
            if label not in (self._blank, self._silence):
                spoken.append((frame, heard))
        return Transcript(" ".join(word.text for word in words), tuple(words))


def _of(values: Beam | Steps, places: Tensor) -> Beam | Steps:
    """The same of other places. Shape: (B, M), (B, K) -> (B, K)."""
    return type(values)(**{name: value.gather(1, places) for name, value in vars(values).items()})
