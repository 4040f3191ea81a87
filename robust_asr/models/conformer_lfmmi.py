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

    Before its first loss it must be given the training texts (``prepare``); a checkpoint keeps what it learnt of
    them. It hears phones: for words it needs ``robust_asr.search.phones.PhoneBeamSearch`` as its search. Targets may hold
    words that the lexicon does not have, see ``Lexicon``.

    Attributes:
        log_bigram: what ``estimate_bigram`` says, (V, V); all zero before ``estimate_language``.
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
        """Estimate the language of the denominator from the training texts, unless a checkpoint brought one."""
        if not self.knows_language:
            self.estimate_language(texts)

    def estimate_language(self, texts: Iterable[str]) -> None:
        """Take the phone bigram of these texts, those of the training set, for the language of the denominator."""
        self.log_bigram.copy_(estimate_bigram(texts, self.lexicon))

    @property
    def knows_language(self) -> bool:
        """Whether ``estimate_language`` was called, here or before the checkpoint was written."""
        # Asked of the device once only.
        self._estimated = self._estimated or bool(self.log_bigram.any())
        return self._estimated

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Frames of ``encode``. Shape: (B,) samples -> (B,) frames."""
        return self.encoder.num_frames(lengths)

    def targets(self, texts: Sequence[str]) -> PhoneGraphs:
        # All at once: the words that the lexicon does not have are asked for together.
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
            raise RuntimeError("a loss of phones needs their bigram: call prepare with the training texts first")
        return lfmmi_loss(self.log_probs(hidden), frame_lengths, targets, self.log_bigram)
