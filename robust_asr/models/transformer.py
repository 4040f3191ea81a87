"""Transformer encoder-decoder (Vaswani et al. 2017) for speech, in the configuration of Espresso (Wang et al. 2019).

Legend: B utterances, T samples, F frames of 10 ms, M mel bins, S steps of 40 ms, D hidden units, U tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.losses import ctc_frames_needed, ctc_loss
from robust_asr.masking import length_mask, masked
from robust_asr.models.features import LogMel
from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.models.normed_features import NormedFeatures
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.models.subsampling import NormedSubsampling
from robust_asr.models.token_synchronous import TokenScores, TokenSynchronous
from robust_asr.models.transformer_decoder import DecoderState, TransformerDecoder, positions
from robust_asr.ranges import require_heads, require_shares, require_sizes
from robust_asr.search.attention import attended_spans
from robust_asr.search.base import Search
from robust_asr.search.decoder_beam import DecoderBeam
from robust_asr.search.greedy import transcript_of
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import Emissions, TokenTargets, Transcript


class TransformerEncoder(NormedFeatures):
    """Log-mel, BatchNorm of each bin, convolutions to steps of 40 ms, sinusoidal positions, pre-norm Transformer layers.

    The padding has no effect on any utterance. The defaults are Espresso's: 12 layers of width 512.

    Args:
        spec_augment: masks the normalised features in training; no masks by default.

    Units: dropout in [0, 1).
    Shape: waveforms (B, T), lengths (B,) -> hidden (B, S, D), zero in the padding, step_lengths (B,).
    """

    def __init__(
        self,
        *,
        num_mels: int = 80,
        subsampling_channels: int = 128,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        feed_forward_width: int = 2048,
        dropout: float = 0.1,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        require_sizes(
            "Transformer",
            num_mels=num_mels,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            feed_forward_width=feed_forward_width,
        )
        require_sizes("Transformer", least=2, subsampling_channels=subsampling_channels)
        require_heads("Transformer", width, num_heads=num_heads)
        require_shares("Transformer", dropout=dropout)
        self.num_mels = num_mels
        self.subsampling_channels = subsampling_channels
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.feed_forward_width = feed_forward_width
        self.dropout = dropout
        self.front_end = LogMel(num_mels=num_mels)
        self.sample_rate = self.front_end.sample_rate
        self.frame_shift = 4 * self.front_end.hop
        self.feature_norm = MaskedBatchNorm(num_mels)
        self.spec_augment = spec_augment
        self.subsample = NormedSubsampling(num_mels, channels=subsampling_channels, width=width)
        self.input_dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, num_heads, feed_forward_width, dropout, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Steps of the result. Shape: (B,) samples -> (B,) steps."""
        return self.subsample.num_steps(self.front_end.num_frames(lengths))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, feature_lengths = self.features(waveforms, lengths)
        values, step_lengths = self.subsample(features, feature_lengths)
        values = self.input_dropout(values + positions(values.shape[1], self.width, like=values))
        padding = ~length_mask(step_lengths, values.shape[1])
        for layer in self.layers:
            values = layer(values, src_key_padding_mask=padding)
        return masked(self.norm(values), step_lengths), step_lengths


class Transformer(TokenSynchronous):
    """Encoder, decoder over characters or word pieces, cross-entropy of each token given those before it.

    Id 0 opens and ends a text. In evaluation mode, and so in attacks, the loss is minus the score by which the search compares
    texts, before any division by their length and without a language model: (1 - w) the negative log-likelihood of the text and its
    end by the decoder + w the CTC loss of the encoder, with the ``ctc_weight`` of the search. In training w is the recogniser's
    own (Watanabe et al. 2017, equation 13), and the decoder's part has label smoothing.

    A transcript has at most one token a step, and a text of more is not feasible; with CTC the text must fit into CTC's topology
    too. The default search is greedy; ``DecoderBeam`` is the other. Word times come from attention to the steps.

    Args:
        encoder: its width is that of the decoder.
        num_layers, num_heads, feed_forward_width, dropout: of the decoder.
        label_smoothing: share of the cross-entropy that is spread evenly over the vocabulary, in training mode.
        ctc_weight: of the CTC loss, in training mode; at 0 there is no CTC output, and no search may ask for one.

    Units: dropout, label_smoothing and ctc_weight in [0, 1).
    """

    stochastic = False

    def __init__(
        self,
        encoder: TransformerEncoder,
        *,
        tokenizer: Tokenizer | None = None,
        num_layers: int = 6,
        num_heads: int = 8,
        feed_forward_width: int = 2048,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
        ctc_weight: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"num_layers": num_layers, "num_heads": num_heads, "feed_forward_width": feed_forward_width}
        require_sizes("Transformer", **sizes)
        require_heads("Transformer", encoder.width, num_heads=num_heads)
        require_shares("Transformer", dropout=dropout, label_smoothing=label_smoothing, ctc_weight=ctc_weight)
        self.encoder = encoder
        self.sample_rate = encoder.sample_rate
        self.tokenizer = tokenizer if tokenizer is not None else CharacterTokenizer()
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.feed_forward_width = feed_forward_width
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.ctc_weight = ctc_weight
        self.decoder = TransformerDecoder(
            self.tokenizer.size,
            width=encoder.width,
            num_layers=num_layers,
            num_heads=num_heads,
            feed_forward_width=feed_forward_width,
            dropout=dropout,
        )
        self.head = nn.Linear(encoder.width, self.tokenizer.size)
        self.ctc_head = nn.Linear(encoder.width, self.tokenizer.size) if ctc_weight else None
        self._search = DecoderBeam(1)

    @property
    def search(self) -> DecoderBeam:
        return self._search

    def use_search(self, search: Search) -> None:
        if not isinstance(search, DecoderBeam):
            raise ValueError(
                f"search: {type(self).__name__} writes token by token, which {type(search).__name__} cannot search: "
                "take DecoderBeam"
            )
        if search.ctc_weight and self.ctc_head is None:
            raise ValueError(
                f"search: ctc_weight is {search.ctc_weight}, the recogniser was trained without CTC: take 0"
            )
        self._search = search

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return self._steps_needed(targets).to(lengths.device, non_blocking=True) <= self.encoder.num_frames(lengths)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder(waveforms, lengths)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        forced = self.teacher_forced(hidden, frame_lengths, targets)
        smoothing = self.label_smoothing if self.training else 0.0
        losses = functional.cross_entropy(
            forced.scores.transpose(1, 2), forced.tokens, reduction="none", label_smoothing=smoothing
        )
        losses = masked(losses, forced.lengths).sum(1)
        if weight := self.ctc_weight if self.training else self.search.ctc_weight:
            losses = torch.lerp(losses, self._ctc_loss(hidden, frame_lengths, targets), weight)
        needed = self._steps_needed(targets).to(hidden.device, non_blocking=True)
        return losses.masked_fill(needed > frame_lengths, torch.inf)

    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> TokenScores:
        tokens = targets.tokens.to(hidden.device, non_blocking=True)
        states = self.decoder(functional.pad(tokens, (1, 0)), hidden, frame_lengths)
        lengths = targets.token_lengths.to(hidden.device, non_blocking=True)
        # Texts are padded with zeros, so one more zero is the end of the text.
        return TokenScores(self._scores(states), functional.pad(tokens, (0, 1)), lengths + 1)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        emissions = Emissions(self._ctc_log_probs(hidden), frame_lengths) if self.search.ctc_weight else None
        state = self.decoder.start(hidden, frame_lengths)
        texts = self.search(self._step, state, frame_lengths, self.tokenizer, emissions=emissions)
        return self._aligned(hidden, frame_lengths, texts)

    def _step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        states, state = self.decoder.step(tokens, state)
        return self._scores(states).log_softmax(-1), state

    def _scores(self, states: Tensor) -> Tensor:
        scores = self.head(states)
        # At least float32: half precision is too coarse for a sum over a text.
        return scores if scores.dtype == torch.float64 else scores.float()

    def _ctc_loss(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        return ctc_loss(self._ctc_log_probs(hidden), frame_lengths, targets, blank=self.tokenizer.blank)

    def _ctc_log_probs(self, hidden: Tensor) -> Tensor:
        scores = self.ctc_head(hidden)
        return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)

    def _steps_needed(self, targets: TokenTargets) -> Tensor:
        return targets.token_lengths if self.ctc_head is None else ctc_frames_needed(targets)

    def _aligned(self, hidden: Tensor, frame_lengths: Tensor, texts: list[list[int]]) -> list[Transcript]:
        """The words of tokens, with times and confidences: the geometric mean of the decoder's probabilities of their tokens."""
        token_lengths = torch.tensor([len(text) for text in texts], device=hidden.device)
        longest = int(token_lengths.max()) if texts else 0
        tokens = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=hidden.device)
        tokens = tokens.view(len(texts), longest).long()
        weights: list[Tensor] = []
        states = self.decoder(functional.pad(tokens, (1, 0))[:, :longest], hidden, frame_lengths, weights)
        chosen = self._scores(states).log_softmax(-1).gather(-1, tokens[..., None])[..., 0].tolist()
        spans = attended_spans(torch.cat(weights, 1).float(), frame_lengths, token_lengths)
        return [
            self._transcript(*utterance) for utterance in zip(texts, spans, chosen, frame_lengths.tolist(), strict=True)
        ]

    def _transcript(
        self, tokens: list[int], spans: list[tuple[int, int]], scores: list[float], num_steps: int
    ) -> Transcript:
        # A step stands for the 40 ms around its centre. The audio reaches from the first centre to the last, at least.
        edges = [[min(max(edge - 0.5, 0.0), num_steps - 1.0) for edge in span] for span in spans]
        runs = [
            (token, *span, 1, score) for token, span, score in zip(tokens, edges, scores[: len(tokens)], strict=True)
        ]
        return transcript_of(runs, self.tokenizer, frame_shift=self.encoder.frame_shift)
