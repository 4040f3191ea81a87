"""Live checks of randomness: equal seeds give equal losses, different seeds different ones, an attack uses all draws it names.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack
from robust_asr.attacks.objectives import Loss
from robust_asr.checks.live.passage import defenses_of
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.models.wrapper import Wrapper
from robust_asr.randomness import Key, derive
from robust_asr.types import AudioBatch, Status, Targets, Transcript

REPEATS = Question(
    "equal draws give equal losses",
    "Some part draws without a seed, such as dropout that was left on, so the attack aims at a different model in every step.",
)
ONE_PASS = Question(
    "one pass for loss and transcript gives the same as two passes",
    "Attacks and verdicts take loss and transcript from one pass, so they see a different system than the one that transcribes.",
)
OWN_DRAWS = Question(
    "every utterance has random draws of its own",
    "One draw for all utterances is a fixed transformation: it is easier to attack, and its results are no random sample.",
)
AVERAGES = Question(
    "the attack averages as many draws as its name says",
    "Against a system that draws anew in every pass the attack averages fewer gradients than its name says, so it is weaker.",
)
# The largest accepted difference of two losses, as a share of the loss, or in nats if the loss is below one nat. The order of
# sums on a GPU moves a loss by 1e-6, dropout by a tenth.
_ROOM = 1e-4


def check_repeats(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """Compute the loss twice with the same seeds. Shape: seeds (B,)."""
    first, second = (_losses(recognizer, batch, texts, seeds=seeds) for _ in range(2))
    apart = float(((first - second).abs() / first.abs().clamp(min=1)).max())
    return REPEATS.verdict(apart <= _ROOM, f"the same loss twice differs by {100 * apart:.3g} %", value=100 * apart)


def check_one_pass(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """Compare ``loss_and_transcripts`` with ``loss`` and ``transcribe``. Shape: seeds (B,)."""
    given = batch.waveforms, batch.lengths
    with torch.no_grad():
        losses, heard = recognizer.loss_and_transcripts(*given, recognizer.targets(texts), seeds=seeds)
        heard_alone = recognizer.transcribe(*given, seeds=seeds)
    alone = _losses(recognizer, batch, texts, seeds=seeds)
    moved = float(((losses.double() - alone).abs() / alone.abs().clamp(min=1)).max())
    others = sum(one.text != other.text for one, other in zip(heard, heard_alone, strict=True))
    evidence = f"the loss differs by {100 * moved:.3g} %, {others} of {len(batch)} transcripts differ"
    return ONE_PASS.verdict(moved <= _ROOM and not others, evidence, value=100 * moved)


def check_own_draws(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check | None:
    """Pass the first utterance twice, with two seeds. None for a stochastic recogniser without a stochastic defence.

    A stochastic defence must give two different results. A recogniser with ``stochastic = False`` must give the same loss.

    Shape: seeds (B,), the seeds that the evaluation gives to the utterances.
    """
    drawing = [stage for stage in defenses_of(recognizer) if stage.stochastic]
    if drawing and len(set(seeds.tolist())) < len(seeds):
        return OWN_DRAWS.verdict(False, "utterances of one batch share a seed")
    pair, two = batch.select([0, 0]), other_seeds(seeds)
    if not recognizer.stochastic:
        losses = _losses(recognizer, pair, [texts[0]] * 2, seeds=two)
        apart = float((losses[0] - losses[1]).abs() / losses[0].abs().clamp(min=1))
        evidence = f"the recogniser says that it is not random; two seeds move its loss by {100 * apart:.3g} %"
        return OWN_DRAWS.verdict(apart <= _ROOM, evidence, value=100 * apart)
    with torch.no_grad():
        heard = [stage(pair.waveforms, pair.lengths, seeds=two)[0] for stage in drawing]
    same = [stage.name for stage, (first, second) in zip(drawing, heard, strict=True) if torch.equal(first, second)]
    evidence = f"{len(same)} of {len(drawing)} defences draw the same for two seeds" + (
        f": {some(same)}" if same else ""
    )
    return OWN_DRAWS.verdict(not same, evidence, value=len(same)) if drawing else None


def check_own_noise(attack: Attack, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> Check | None:
    """For a condition that adds noise: two seeds must give two noises. None if the condition changes nothing.

    Shape: seeds (B,).
    """
    pair = batch.select([0, 0])
    delta = attack.generate(recognizer, pair, seeds=other_seeds(seeds)).waveforms - pair.waveforms
    if not bool(delta.any()):
        return None
    if len(set(seeds.tolist())) < len(seeds):
        return OWN_DRAWS.verdict(False, "utterances of one batch share a seed")
    alike = float(torch.nn.functional.cosine_similarity(delta[0].double(), delta[1].double(), dim=0))
    # Two independent white noises of a tenth of a second have a correlation of about 1/40.
    return OWN_DRAWS.verdict(abs(alike) < 0.5, f"the noise of two utterances correlates by {alike:.3g}", value=alike)


def other_seeds(seeds: Tensor) -> Tensor:
    """Two different seeds: the seed of the first utterance and a seed derived from it. Shape: (B,) -> (2,)."""
    return torch.cat([seeds[:1], derive(seeds[:1], step=Key.ANOTHER_SEED)])


class Witness(Wrapper):
    """A recogniser that records the seeds of every loss that is differentiated, and otherwise behaves as the one inside."""

    def __init__(self, recognizer: Recognizer, seen: list[int] | None = None) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.seen = [] if seen is None else seen

    def view(self, knowledge: Knowledge) -> Witness:
        view = self.recognizer.view(knowledge)
        return self if view is self.recognizer else Witness(view, self.seen)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        if waveforms.requires_grad and seeds is not None:
            self.seen.extend(seeds.tolist())
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)


def check_averages(attack: Attack, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> Check | None:
    """Run an attack of one iteration and count the different draws of its gradients, on average over the attacked utterances.

    The draws are those of the loss, whatever objective the attack raises. None if no utterance of the batch can be attacked.

    Shape: seeds (B,).
    """
    if is_dataclass(attack) and any(field.name == "objective" for field in fields(attack)):
        # The witness hands out no frames, and the number of draws does not depend on the objective.
        attack = replace(attack, objective=Loss())
    witness = Witness(recognizer)
    status = attack.generate(witness, batch, seeds=seeds).status
    attacked = sum(given is not Status.REFUSED for given in status)
    if not attacked:
        return None
    draws, named = len(set(witness.seen)) / attacked, attack.num_draws
    return AVERAGES.verdict(draws >= named, f"{draws:g} draws an iteration, its name says {named}", value=draws)


def _losses(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Tensor:
    with torch.no_grad():
        return recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(texts), seeds=seeds).double()
