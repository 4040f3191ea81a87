"""Live check of the way from loss to transcript: where the loss prefers a text, the system writes it.

Attacks follow the loss and are judged by the transcript. If the transcript takes another way, such as audio of a lower sample
rate, an attack that has won on the loss fails, and the system looks robust.

Legend: B utterances, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robust_asr.attacks.verdict import fits
from robust_asr.checks.verdicts import Check, Question
from robust_asr.gradients import input_gradient
from robust_asr.models.base import Recognizer
from robust_asr.threat.norms import euclidean
from robust_asr.types import AudioBatch

WRITES = Question(
    "the system writes the text that its loss prefers",
    "Loss and transcript see different audio or another model, so an attack on the loss says little about the transcript.",
)
# The loss of the written text may be this many times that of the preferred text, and these nats more. A greedy search does not
# add the alignments of a text, and a lexicon forbids texts, so where no text is certain another may be written. Trained
# recognisers need nothing of it; transcripts or losses of audio at 8 kHz have 5 to 107 nats more.
_TIMES, _ROOM = 3.0, 5.0
# Where another text is written, the descent ends when the preferred one has this loss: e^-.5 is 61 %, so none is likelier.
_CERTAIN = 0.5
# It has failed where the loss is above this share of what it was and above two nats. Such losses are flat, as of a network that
# hardly learnt, and a search may miss the likely texts.
_LEFT, _LOW = 0.25, 2.0
_ITERATIONS = 30
# The first step, in dB below the level of the audio: small, because a large perturbation is heard on any way.
_FIRST_STEP = -42.0
# The share of earlier gradients that a step keeps. Without it, steps along signs go to and fro, and as many as a half of AN4's
# utterances do not get there in thirty steps.
_MOMENTUM = 0.75


def check_writing(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """Perturb each utterance until the loss prefers another text, and compare that with the transcript. Shape: seeds (B,)."""
    heard = _written(recognizer, batch, seeds)
    wanted = {row: _another(recognizer, batch, row, heard[row], texts) for row in range(len(batch))}
    rows = [row for row, text in wanted.items() if text]
    if not rows:
        return WRITES.not_run("no other text fits the audio")
    part, keyed, targets = batch.select(rows), seeds[rows], [wanted[row] for row in rows]
    try:
        waveforms, losses, first = _towards(recognizer, part, targets, keyed)
    except ValueError as error:
        return WRITES.not_run(str(error))
    preferred = (losses <= (_LEFT * first).clamp(min=_LOW)).nonzero()[:, 0].tolist()
    if not preferred:
        return WRITES.not_run(f"in {_ITERATIONS} steps no other text became the likely one")
    moved, keyed = part.replace(waveforms).select(preferred), keyed[preferred]
    written = _written(recognizer, moved, keyed)
    own = [_loss(recognizer, moved.select([row]), text, keyed[[row]]) for row, text in enumerate(written)]
    loss, other = max(zip(own, losses[preferred].tolist(), strict=True), key=lambda pair: pair[0] - _TIMES * pair[1])
    evidence = f"the text that is written has a loss of {loss:.3g} nats where another has {other:.3g}"
    return WRITES.verdict(loss <= _TIMES * other + _ROOM, evidence, value=loss - other)


def _another(recognizer: Recognizer, batch: AudioBatch, row: int, heard: str, texts: Sequence[str]) -> str:
    """What is heard without its last word, or else the text of another utterance; "" where neither is another text that fits."""
    candidates = [heard.rpartition(" ")[0], *texts[row + 1 :], *texts[:row]]
    length = batch.lengths[row : row + 1]
    return next((text for text in candidates if text and text != heard and fits(recognizer, length, text)), "")


def _towards(
    recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], seeds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The audio after steps of equal size in every sample down the loss of the texts, the loss there, and the loss before.

    The steps follow the signs of the gradient with momentum (Dong et al. 2018) and shorten along a cosine. What is returned of
    an utterance is its lowest loss.

    Shape: -> (B, T), (B,), (B,).
    """
    targets = recognizer.targets(texts)
    length = 10 ** (_FIRST_STEP / 20) * euclidean(batch.waveforms) / batch.lengths.sqrt()
    best, trial, momentum = batch.waveforms, batch.waveforms, torch.zeros_like(batch.waveforms)
    lowest = before = torch.full_like(length, torch.inf)
    looked = False
    for step in range(_ITERATIONS):
        losses, gradient = input_gradient(
            lambda waveforms: recognizer.loss(waveforms, batch.lengths, targets, seeds=seeds), trial
        )
        before = losses if step == 0 else before
        better = losses < lowest
        lowest, best = torch.where(better, losses, lowest), torch.where(better[:, None], trial, best)
        if bool((lowest <= (_CERTAIN if looked else _LOW)).all()):
            # Most systems write the text as soon as it is likely, which one look tells.
            if looked or _written(recognizer, batch.replace(best), seeds) == list(texts):
                break
            looked = True
        size = gradient.abs().sum(1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        momentum = _MOMENTUM * momentum + gradient / size
        shorter = math.cos(math.pi / 2 * step / _ITERATIONS)
        trial = (trial - shorter * length[:, None] * momentum.sign()).clamp(-1, 1)
    return best, lowest, before


@torch.no_grad()
def _written(recognizer: Recognizer, batch: AudioBatch, seeds: Tensor) -> list[str]:
    return [heard.text for heard in recognizer.transcribe(batch.waveforms, batch.lengths, seeds=seeds)]


@torch.no_grad()
def _loss(recognizer: Recognizer, one: AudioBatch, text: str, seeds: Tensor) -> float:
    """The loss of a text that the recogniser wrote; infinite where it has none for it."""
    if not fits(recognizer, one.lengths, text):
        return torch.inf
    return float(recognizer.loss(one.waveforms, one.lengths, recognizer.targets([text]), seeds=seeds))
