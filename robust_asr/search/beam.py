"""Beam search over CTC emissions, with a lexicon, an n-gram, both or neither (extra ``beam``)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.search.greedy import Decoder, align
from robust_asr.text import Tokenizer, normalize
from robust_asr.types import Emissions, Transcript


class BeamSearch(Decoder):
    """The text of the highest total probability that a beam finds, by torchaudio's decoder (flashlight).

    Without a lexicon and an n-gram the total probability of a text is the sum over its alignments, as the CTC loss has
    it. With a lexicon only its words are written. An n-gram multiplies its probability in, by words with a lexicon,
    else by tokens, where a space is written ``|``. The search runs on the CPU; its trie is built at the first call and
    is no part of a pickle or a copy. Word times are those of the best alignment.

    ``lexicon`` holds words, or whole texts such as the training transcripts, or is the path of a file of them.
    ``ngram`` is the path of a KenLM model of order 2 or more, text (ARPA) or binary. A binary is mapped into memory
    unchecked: of strangers take ARPA.

    Units: ``ngram_weight`` scales the n-gram's log10 probabilities, ``word_score`` is added for each word (nats),
    ``beam_threshold`` (nats) drops what is so far behind the best.
    Errors: ImportError if the extra is not installed; FileNotFoundError; ValueError names a word that the tokenizer
    cannot write, or an n-gram that cannot be read.
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
        for path in (lexicon, ngram):
            if isinstance(path, str) and not Path(path).is_file():
                raise FileNotFoundError(f"BeamSearch: there is no file {path}")
        self.lexicon = lexicon
        self.ngram = ngram
        self.ngram_weight = ngram_weight
        self.word_score = word_score
        self.beam_size = beam_size
        self.beam_size_token = beam_size_token
        self.beam_threshold = beam_threshold
        flashlight(needs_ngram=ngram is not None)
        self._built: tuple[Tokenizer, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}

    def __call__(self, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
        log_probs, frame_lengths = emissions.log_probs.float().cpu(), emissions.frame_lengths.cpu()
        emissions = Emissions(log_probs, frame_lengths)
        if self.lexicon is not None:
            # A word counts once the space after it is written, so every utterance is given one after its last frame.
            log_probs = _closed(log_probs, frame_lengths, _separator(tokenizer))
            frame_lengths = frame_lengths + 1
        best = [found[0] for found in self._search(tokenizer)(log_probs.contiguous(), frame_lengths)]
        labels = torch.full(emissions.log_probs.shape[:2], tokenizer.blank)
        for row, hypothesis in enumerate(best):
            # The search counts from one frame before the first, where it starts, to one after the last.
            frames = hypothesis.timesteps.long() - 1
            inside = (frames >= 0) & (frames < emissions.frame_lengths[row])
            labels[row, frames[inside]] = hypothesis.tokens[inside]
        transcripts = align(labels, emissions, tokenizer, frame_shift=frame_shift)
        if self.lexicon is None:
            return transcripts
        return [_first_words(text, len(found.words)) for text, found in zip(transcripts, best, strict=True)]

    def _search(self, tokenizer: Tokenizer) -> Any:
        if self._built is None or self._built[0] is not tokenizer:
            self._built = (tokenizer, self._build(tokenizer))
        return self._built[1]

    def _build(self, tokenizer: Tokenizer) -> Any:
        names = [str(token) for token in range(tokenizer.size)]
        silence = tokenizer.blank
        if self.lexicon is not None:
            silence = _separator(tokenizer)
        elif self.ngram is not None:
            names = [tokenizer.decode([token]).replace(" ", "|") or f"<{token}>" for token in range(tokenizer.size)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "words"
            if self.lexicon is not None:
                path.write_text(_spelled(words_of(texts_of(self.lexicon)), tokenizer, silence), encoding="utf-8")
            elif self.ngram is not None:
                # Without this list torchaudio numbers the tokens anew, in the order of a hash table.
                path.write_text("\n".join(names), encoding="utf-8")
            return self._flashlight(
                lexicon=str(path) if self.lexicon is not None else None,
                tokens=names,
                lm_dict=str(path) if self.lexicon is None and self.ngram is not None else None,
                beam_size_token=self.beam_size_token,
                log_add=True,
                blank_token=names[tokenizer.blank],
                sil_token=names[silence],
            )

    def _flashlight(self, **arguments: Any) -> Any:
        try:
            return flashlight(needs_ngram=False)(
                **arguments,
                lm=self.ngram,
                beam_size=self.beam_size,
                beam_threshold=self.beam_threshold,
                lm_weight=self.ngram_weight,
                word_score=self.word_score,
            )
        except RuntimeError as error:
            raise ValueError(f"ngram {self.ngram} cannot be read: {str(error).splitlines()[-1]}") from error


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of texts, normalised: the most frequent first, equals in the order of the alphabet."""
    counts = Counter(word for text in texts for word in normalize(text).split())
    return sorted(counts, key=lambda word: (-counts[word], word))


def texts_of(lexicon: Sequence[str] | str) -> Iterable[str]:
    return Path(lexicon).read_text(encoding="utf-8").splitlines() if isinstance(lexicon, str) else lexicon


def _spelled(words: list[str], tokenizer: Tokenizer, separator: int) -> str:
    if not words:
        raise ValueError("the lexicon holds no word")
    return "".join(f"{word} {' '.join(map(str, [*tokenizer.encode(word), separator]))}\n" for word in words)


def _separator(tokenizer: Tokenizer) -> int:
    """The token that stands between words."""
    tokens = [token for token in range(tokenizer.size) if tokenizer.pieces([token]) == [" "]]
    if len(tokens) != 1:
        raise ValueError(f"a lexicon needs a tokenizer with one token for the space, this one has {len(tokens)}")
    return tokens[0]


def _closed(log_probs: Tensor, frame_lengths: Tensor, separator: int) -> Tensor:
    """One more frame an utterance, in which the separator is certain. Shape: (B, F, V) -> (B, F + 1, V)."""
    longer = functional.pad(log_probs, (0, 0, 0, 1))
    rows = torch.arange(len(longer))
    # Not minus infinity, of which the search would make nan.
    longer[rows, frame_lengths] = -1e4
    longer[rows, frame_lengths, separator] = 0.0
    return longer


def _first_words(transcript: Transcript, num_words: int) -> Transcript:
    """Without a last word that the search could not complete."""
    words = transcript.words[:num_words]
    return Transcript(" ".join(word.text for word in words), words)


def flashlight(*, needs_ngram: bool) -> Any:
    try:
        import flashlight.lib.text.decoder  # noqa: F401 - torchaudio asks for it only when it is too late to explain
        from torchaudio.models.decoder import ctc_decoder
    except ImportError as error:
        raise ImportError("beam search needs flashlight-text: pip install 'robust-asr[beam]'") from error
    if needs_ngram:
        try:
            from flashlight.lib.text.decoder.kenlm import KenLM  # noqa: F401
        except ImportError as error:
            raise ImportError("an n-gram needs a flashlight-text that was built with KenLM") from error
    return ctc_decoder
