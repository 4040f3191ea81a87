"""Live: what reaches the recogniser. Each defence acts, padding does not, and 24 bits hold the perturbation.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.defenses.base import Defense
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.randomness import keyed_normal
from robust_asr.threat.norms import euclidean
from robust_asr.types import AudioBatch

ACTS = Question(
    "each defence acts on the audio",
    "It is off where the system is attacked or scored, so the row is not that of the defended system.",
)
PADDING = Question(
    "an utterance's loss does not depend on its padding",
    "What is measured of an utterance depends on the batch that it was in; say padding_invariant = False, or mask.",
)
KEPT = Question(
    "audio of 24 bits keeps the perturbation",
    "The perturbation is so small that its saved form is another one.",
)
# Of the loss, or nats of a small one: other shapes take other kernels, in TF32 off by a thousandth. Statistics over the
# padding move it by a tenth and more.
_PADDING_ROOM = 0.01
_PADDING = 4000
# Of the perturbation's norm: 20 dB below it.
_LOST = 0.1


def check_defenses(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check | None:
    """While a loss is computed and while a transcript is made. None where there is no defence. Shape: seeds (B,)."""
    stages = defenses_of(recognizer)
    if not stages:
        return None
    targets = recognizer.targets(texts)
    # Some defences leave clean audio alone.
    noise = keyed_normal(seeds, batch.lengths, batch.waveforms.shape[1], device=batch.waveforms.device)
    level = batch.waveforms.square().mean(1, keepdim=True).sqrt().clamp(min=0.01)
    both = (batch.waveforms, batch.waveforms + masked(level * noise, batch.lengths))
    with torch.no_grad(), _acting(stages) as attacked:
        for waveforms in both:
            recognizer.loss(waveforms, batch.lengths, targets, seeds=seeds)
    with torch.no_grad(), _acting(stages) as scored:
        for waveforms in both:
            recognizer.transcribe(waveforms, batch.lengths, seeds=seeds)
    idle = [f"{stage.name} does nothing to the loss" for stage in stages if stage not in attacked]
    idle += [f"{stage.name} does nothing to the transcript" for stage in stages if stage not in scored]
    found = some(idle) or f"{len(stages)} of {len(stages)} change what they are given"
    return ACTS.verdict(not idle, found, value=len(idle))


def check_padding(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """The loss in a batch with room to spare against the loss alone. Shape: seeds (B,)."""
    with torch.no_grad():
        targets = recognizer.targets(texts)
        wide = functional.pad(batch.waveforms, (0, _PADDING))
        together = recognizer.loss(wide, batch.lengths, targets, seeds=seeds)
        alone = torch.cat(
            [_alone(recognizer, batch.select([row]), texts[row], seeds[row]) for row in range(len(batch))]
        )
    apart = float(((together - alone).abs() / alone.abs().clamp(min=1)).max())
    found = f"padding moves the loss by {100 * apart:.3g} %"
    return PADDING.verdict(apart <= _PADDING_ROOM, found, value=100 * apart)


def check_bits(clean: AudioBatch, attacked: Tensor) -> Check | None:
    """Rounded as it is saved. None where nothing was changed. Shape: (B, T)."""
    delta = masked(attacked - clean.waveforms, clean.lengths).double()
    rows = delta.any(1)
    if not bool(rows.any()):
        return None
    lost = masked((attacked.double() * 2**23).round() / 2**23 - attacked, clean.lengths)
    share = median((euclidean(lost)[rows] / euclidean(delta)[rows]).tolist())
    return KEPT.verdict(share <= _LOST, f"rounding is {100 * share:.3g} % of the perturbation", value=100 * share)


def defenses_of(recognizer: Recognizer) -> list[Defense]:
    """Every defence inside, whether or not what stands around it says so: one that is passed by is what is looked for."""
    return [module for module in recognizer.modules() if isinstance(module, Defense) and module.stages == (module,)]


@contextmanager
def _acting(stages: Sequence[Defense]) -> Iterator[set[Defense]]:
    """Collects the defences whose result differs from what they were given."""
    acted: set[Defense] = set()

    def look(stage: Defense, arguments: tuple, result: tuple[Tensor, Tensor]) -> None:
        given, made = arguments[0], result[0]
        if given.shape != made.shape or not torch.equal(given, made):
            acted.add(stage)

    hooks = [stage.register_forward_hook(look) for stage in stages]
    try:
        yield acted
    finally:
        for hook in hooks:
            hook.remove()


def _alone(recognizer: Recognizer, one: AudioBatch, text: str, seed: Tensor) -> Tensor:
    return recognizer.loss(one.waveforms, one.lengths, recognizer.targets([text]), seeds=seed[None])
