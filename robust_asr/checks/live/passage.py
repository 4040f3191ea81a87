"""Live checks of the audio's way to the recogniser: defences change it, padding has no effect, 24 bits keep the perturbation.

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
    "A defence is off while the system is attacked or scored, so the results are not those of the defended system.",
)
PADDING = Question(
    "an utterance's loss does not depend on its padding",
    "An utterance's results depend on the batch that it is in; set padding_invariant = False, or mask the padding.",
)
KEPT = Question(
    "audio saved with 24 bits keeps the perturbation",
    "The perturbation is so small that rounding to 24 bits changes it substantially.",
)
# The largest accepted difference of two losses, as a share of the loss, or in nats if the loss is below one nat. Tensors of
# another shape use other kernels, which in TF32 moves a loss by a thousandth; statistics over the padding move it by a tenth
# or more.
_PADDING_ROOM = 0.01
_PADDING = 4000
# The largest accepted rounding error, as a share of the perturbation's norm: 20 dB below the perturbation.
_LOST = 0.1


def check_defenses(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check | None:
    """Whether each defence changes the audio, both for a loss and for a transcript. None without a defence. Shape: seeds (B,)."""
    stages = defenses_of(recognizer)
    if not stages:
        return None
    targets = recognizer.targets(texts)
    # The second version is noisy, because some defences do not change clean audio.
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
    evidence = some(idle) or f"{len(stages)} of {len(stages)} defences change the audio"
    return ACTS.verdict(not idle, evidence, value=len(idle))


def check_padding(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """Compare each loss in a batch with much padding with the loss of the utterance alone. Shape: seeds (B,)."""
    with torch.no_grad():
        targets = recognizer.targets(texts)
        wide = functional.pad(batch.waveforms, (0, _PADDING))
        together = recognizer.loss(wide, batch.lengths, targets, seeds=seeds)
        alone = torch.cat(
            [_alone(recognizer, batch.select([row]), texts[row], seeds[row]) for row in range(len(batch))]
        )
    apart = float(((together - alone).abs() / alone.abs().clamp(min=1)).max())
    evidence = f"padding moves the loss by {100 * apart:.3g} %"
    return PADDING.verdict(apart <= _PADDING_ROOM, evidence, value=100 * apart)


def check_bits(clean: AudioBatch, attacked: Tensor) -> Check | None:
    """Compare the perturbation with its error after rounding to 24 bits. None if no utterance was changed. Shape: (B, T)."""
    delta = masked(attacked - clean.waveforms, clean.lengths).double()
    rows = delta.any(1)
    if not bool(rows.any()):
        return None
    lost = masked((attacked.double() * 2**23).round() / 2**23 - attacked, clean.lengths)
    share = median((euclidean(lost)[rows] / euclidean(delta)[rows]).tolist())
    return KEPT.verdict(share <= _LOST, f"rounding is {100 * share:.3g} % of the perturbation", value=100 * share)


def defenses_of(recognizer: Recognizer) -> list[Defense]:
    """Every defence among the modules of a recogniser.

    ``Defended.defenses`` is not asked, because a defence that the recogniser forgot to apply must be among the results.
    """
    return [module for module in recognizer.modules() if isinstance(module, Defense) and module.stages == (module,)]


@contextmanager
def _acting(stages: Sequence[Defense]) -> Iterator[set[Defense]]:
    """Collects the defences whose output differs from their input."""
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
