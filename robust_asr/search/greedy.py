"""The best label of every frame, and the times of the words that such labels spell."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robust_asr.masking import length_mask
from robust_asr.search.base import FrameSearch
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Transcript, Word


class GreedySearch(FrameSearch):
    """The best label of every frame, repeats merged, blanks dropped (Graves et al. 2006, best path)."""

    def __call__(self, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
        return align(emissions.log_probs.argmax(-1), emissions, tokenizer, frame_shift=frame_shift)


def align(labels: Tensor, emissions: Emissions, tokenizer: Tokenizer, *, frame_shift: float) -> list[Transcript]:
    """What one label a frame spells, with the times of the words.

    A word starts with the first frame of its first label and ends after the last frame of its last label. Its
    confidence is the geometric mean of the labels' probabilities over the frames that carry them; blank frames do not
    count.

    Shape: labels (B, F) -> B transcripts. Units: frame_shift in seconds.
    """
    # On the host at once: what follows is small, and one transfer is cheaper than many.
    chosen = emissions.log_probs.gather(-1, labels[..., None])[..., 0].double().cpu()
    labels, frame_lengths = labels.cpu(), emissions.frame_lengths.cpu()
    kept = (labels != tokenizer.blank) & length_mask(frame_lengths, labels.shape[1])
    repeated = torch.zeros_like(kept)
    repeated[:, 1:] = kept[:, :-1] & (labels[:, 1:] == labels[:, :-1])
    rows, starts = (kept & ~repeated).nonzero(as_tuple=True)
    # A run is contiguous among the kept frames, so a running count of starts numbers the runs.
    run_of_frame = (~repeated)[kept].cumsum(0) - 1
    frames = torch.bincount(run_of_frame, minlength=len(rows))
    scores = torch.zeros(len(rows), dtype=chosen.dtype).index_add_(0, run_of_frame, chosen[kept])
    utterances: list[list[Run]] = [[] for _ in labels]
    columns = (rows, labels[rows, starts], starts, starts + frames, frames, scores)
    for row, *run in zip(*(column.tolist() for column in columns), strict=True):
        utterances[row].append(tuple(run))
    return [transcript_of(runs, tokenizer, frame_shift=frame_shift) for runs in utterances]


# A token, where it starts and ends in frames, and the number and the sum of the log-probabilities that it is heard by.
Run = tuple[int, float, float, int, float]


def transcript_of(runs: list[Run], tokenizer: Tokenizer, *, frame_shift: float) -> Transcript:
    """Groups the tokens of an utterance into words. Units: frame_shift in seconds."""
    words: list[list] = []
    open_word = False
    for piece, (_, start, end, count, score) in zip(tokenizer.pieces([run[0] for run in runs]), runs, strict=True):
        for index, part in enumerate(piece.split(" ")):
            open_word = open_word and index == 0
            if not part:
                continue
            if not open_word:
                words.append(["", start, start, 0, 0.0])
                open_word = True
            word = words[-1]
            word[0] += part
            word[2:] = end, word[3] + count, word[4] + score
    return Transcript(
        text=" ".join(word[0] for word in words),
        words=tuple(
            Word(text, start * frame_shift, end * frame_shift, math.exp(score / count))
            for text, start, end, count, score in words
        ),
    )
