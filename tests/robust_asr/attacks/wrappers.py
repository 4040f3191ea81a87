"""Recognisers around others, and linear classifiers of frames and of tokens whose best perturbation is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_asr.masking import masked
from robust_asr.models.base import FrameSynchronous, Recognizer
from robust_asr.models.token_synchronous import TokenScores, TokenSynchronous
from robust_asr.types import Emissions, Targets, TokenTargets, Transcript
from tests.robust_asr.attacks.oracles import Oracle, Texts

FRAME = 10


class Frames(Oracle, FrameSynchronous):
    """Two labels, whose scores in a frame are linear in its samples: +-w.x / 2. Hears "HIGH" where most frames have label 1."""

    stochastic = False

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def margins(self, waveforms: Tensor) -> Tensor:
        """The score of label 1 minus that of label 0. Shape: (B, T) -> (B, F)."""
        size = -(-waveforms.shape[1] // FRAME) * FRAME
        padded = nn.functional.pad(waveforms, (0, size - waveforms.shape[1]))
        return padded.unflatten(1, (-1, FRAME)) @ self.weights

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        self.rows.append(len(waveforms))
        margins = self.margins(masked(waveforms, lengths))
        scores = torch.stack([-margins / 2, margins / 2], -1).log_softmax(-1)
        return Emissions(scores, -(-lengths // FRAME))

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return self.margins(masked(waveforms, lengths)).sum(1)


class Tokens(TokenSynchronous):
    """Writes a letter a frame, A or B, whose scores are linear in the samples of the frame: +-w.x / 2. Its end is sure."""

    stochastic = False

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.rows: list[int] = []

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        tokens = [torch.tensor(["AB".index(letter) for letter in text], dtype=torch.long) for text in texts]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        return TokenTargets(padded, torch.tensor([len(row) for row in tokens]))

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return targets.token_lengths <= -(-lengths // FRAME)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.rows.append(len(waveforms))
        size = -(-waveforms.shape[1] // FRAME) * FRAME
        padded = nn.functional.pad(masked(waveforms, lengths), (0, size - waveforms.shape[1]))
        return (padded.unflatten(1, (-1, FRAME)) @ self.weights)[..., None], -(-lengths // FRAME)

    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> TokenScores:
        size = targets.tokens.shape[1]
        never = torch.full_like(hidden[:, :size], -torch.inf)
        letters = torch.cat([-hidden[:, :size] / 2, hidden[:, :size] / 2, never], -1)
        at_end = hidden.new_tensor([-9.0, -9.0, 9.0]).expand(len(hidden), 1, 3)
        ended = torch.arange(size + 1) == targets.token_lengths[:, None]
        scores = torch.where(ended[..., None], at_end, torch.cat([letters, at_end], 1))
        return TokenScores(
            scores, nn.functional.pad(targets.tokens, (0, 1)).masked_fill(ended, 2), targets.token_lengths + 1
        )

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        forced = self.teacher_forced(hidden, frame_lengths, targets)
        losses = nn.functional.cross_entropy(forced.scores.transpose(1, 2), forced.tokens, reduction="none")
        return masked(losses, forced.lengths).sum(1)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        rows = zip(hidden[..., 0].tolist(), frame_lengths.tolist(), strict=True)
        return [Transcript("".join("AB"[score > 0] for score in row[:length])) for row, length in rows]


class Wrapped(Recognizer):
    """Hands on loss and transcript alone, as a vote over transcripts does: no hidden units, no scores of frames."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.stochastic = recognizer.stochastic

    @property
    def inside(self) -> Recognizer:
        return self.recognizer

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Texts) -> Tensor:
        return self.recognizer.feasible(lengths, targets)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)
