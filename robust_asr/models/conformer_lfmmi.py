"""Conformer trained with lattice-free MMI: the recogniser of Joshi et al. 2022.

Legend: B utterances, T samples, F frames, D hidden units, V labels (the blank, then phones).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from robust_asr.lfmmi.automaton import phone_graph
from robust_asr.lfmmi.graphs import PhoneGraphs, batched
from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.lfmmi.loss import lfmmi_loss
from robust_asr.lfmmi.phone_lm import estimate_bigram
from robust_asr.models.base import LabelRecognizer
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.text import normalize


class ConformerLFMMI(LabelRecognizer):
    """Conformer, linear head over phones, lattice-free MMI with CTC's topology.

    Before its first loss the model must get the training texts (``prepare``) to estimate a phone bigram; a checkpoint contains
    the bigram. The transcripts are phones; for words use the search ``robust_asr.search.phones.PhoneBeamSearch``. Targets may
    contain words that are not in the lexicon, see ``Lexicon``.

    Attributes:
        log_bigram: the result of ``estimate_bigram``, (V, V); all zero before ``estimate_language``.
    """

    stochastic = False
    log_bigram: Tensor

    def __init__(self, encoder: ConformerEncoder, *, lexicon: Lexicon | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.lexicon = lexicon if lexicon is not None else Lexicon()
        self.sample_rate = encoder.sample_rate
        self.frame_shift = encoder.frame_shift
        self.head = nn.Linear(encoder.width, self.lexicon.size)
        self.register_buffer("log_bigram", torch.zeros(self.lexicon.size, self.lexicon.size))
        self._estimated = False

    @property
    def tokenizer(self) -> Lexicon:
        return self.lexicon

    def prepare(self, texts: Iterable[str]) -> None:
        """Estimate the phone bigram of the denominator from the training texts, unless it was loaded from a checkpoint."""
        if not self.knows_language:
            self.estimate_language(texts)

    def estimate_language(self, texts: Iterable[str]) -> None:
        """Estimate the phone bigram of the denominator from texts, which should be the texts of the training set."""
        self.log_bigram.copy_(estimate_bigram(texts, self.lexicon))

    @property
    def knows_language(self) -> bool:
        """Whether ``estimate_language`` was called, here or before the checkpoint was written."""
        # The value is cached, so that the host waits for the device only once.
        self._estimated = self._estimated or bool(self.log_bigram.any())
        return self._estimated

    def num_frames(self, lengths: Tensor) -> Tensor:
        """The number of frames that ``encode`` returns for each length. Shape: (B,) samples -> (B,) frames."""
        return self.encoder.num_frames(lengths)

    def targets(self, texts: Sequence[str]) -> PhoneGraphs:
        # All words are looked up in one call, so that espeak-ng starts only once for the words that are not in the lexicon.
        known = self.lexicon.pronunciations(word for text in texts for word in normalize(text).split())
        sentences = ([known[word] for word in normalize(text).split()] for text in texts)
        graphs = [phone_graph(sentence, silence=self.lexicon.silence) for sentence in sentences]
        return batched(graphs, num_labels=self.lexicon.size)

    def feasible(self, lengths: Tensor, targets: PhoneGraphs) -> Tensor:
        return targets.frames_needed.to(lengths.device) <= self.num_frames(lengths)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: PhoneGraphs) -> Tensor:
        if not self.knows_language:
            raise RuntimeError("the loss needs the phone bigram: call prepare with the training texts first")
        return lfmmi_loss(self.log_probs(hidden), frame_lengths, targets, self.log_bigram)
