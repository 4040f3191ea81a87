"""Live: randomness. The same draws give the same answer, other draws another one, and an attack draws as often as it says.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack
from robust_asr.checks.live.passage import defenses_of
from robust_asr.checks.verdicts import Check, Question, some
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.types import AudioBatch, Status, Targets, Transcript

REPEATS = Question(
    "equal draws give equal losses",
    "Something draws from no seed, such as dropout left on, so the attack aims at another model in every step.",
)
ONE_PASS = Question(
    "loss and transcript of one pass are those of two",
    "An attack and its verdict take both from one pass: they see another system than the one that transcribes.",
)
OWN_DRAWS = Question(
    "every utterance has draws of its own",
    "One draw for all is a fixed transformation: easier to attack than what was meant, and no sample of anything.",
)
AVERAGES = Question(
    "the attack averages as many draws as it names",
    "Against a system that draws anew each time it follows fewer gradients than its name says: the attack is weaker.",
)
# Of the loss, or nats of a small one. Atomic sums on a GPU are off by 1e-6, dropout by a tenth.
_ROOM = 1e-4


def check_repeats(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """Shape: seeds (B,)."""
    first, second = (_losses(recognizer, batch, texts, seeds=seeds) for _ in range(2))
    apart = float(((first - second).abs() / first.abs().clamp(min=1)).max())
    return REPEATS.verdict(apart <= _ROOM, f"the same loss twice differs by {100 * apart:.3g} %", value=100 * apart)


def check_one_pass(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check:
    """``loss_and_transcripts`` against ``loss`` and ``transcribe``. Shape: seeds (B,)."""
    given = batch.waveforms, batch.lengths
    with torch.no_grad():
        losses, heard = recognizer.loss_and_transcripts(*given, recognizer.targets(texts), seeds=seeds)
        apart = recognizer.transcribe(*given, seeds=seeds)
    alone = _losses(recognizer, batch, texts, seeds=seeds)
    moved = float(((losses.double() - alone).abs() / alone.abs().clamp(min=1)).max())
    others = sum(one.text != other.text for one, other in zip(heard, apart, strict=True))
    seen = f"the loss differs by {100 * moved:.3g} %, {others} of {len(batch)} transcripts differ"
    return ONE_PASS.verdict(moved <= _ROOM and not others, seen, value=100 * moved)


def check_own_draws(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Check | None:
    """One utterance as two of different seeds. None where nothing is said about draws.

    A defence that draws must draw another time; a recogniser that says that it never draws must not.

    Shape: seeds (B,) of the batch as the evaluation has them.
    """
    drawing = [stage for stage in defenses_of(recognizer) if stage.stochastic]
    if drawing and len(set(seeds.tolist())) < len(seeds):
        return OWN_DRAWS.verdict(False, "utterances of one batch share a seed")
    pair, two = batch.select([0, 0]), other_seeds(seeds)
    if not recognizer.stochastic:
        losses = _losses(recognizer, pair, [texts[0]] * 2, seeds=two)
        apart = float((losses[0] - losses[1]).abs() / losses[0].abs().clamp(min=1))
        seen = f"it says that it draws nothing, and two seeds move its loss by {100 * apart:.3g} %"
        return OWN_DRAWS.verdict(apart <= _ROOM, seen, value=100 * apart)
    with torch.no_grad():
        heard = [stage(pair.waveforms, pair.lengths, seeds=two)[0] for stage in drawing]
    same = [stage.name for stage, (first, second) in zip(drawing, heard, strict=True) if torch.equal(first, second)]
    seen = f"{len(same)} of {len(drawing)} defences draw the same for two seeds" + (f": {some(same)}" if same else "")
    return OWN_DRAWS.verdict(not same, seen, value=len(same)) if drawing else None


def check_own_noise(attack: Attack, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> Check | None:
    """Of a condition that is noise; None where it changes nothing. Shape: seeds (B,)."""
    pair = batch.select([0, 0])
    delta = attack.generate(recognizer, pair, seeds=other_seeds(seeds)).waveforms - pair.waveforms
    if not bool(delta.any()):
        return None
    if len(set(seeds.tolist())) < len(seeds):
        return OWN_DRAWS.verdict(False, "utterances of one batch share a seed")
    alike = float(torch.nn.functional.cosine_similarity(delta[0].double(), delta[1].double(), dim=0))
    # White noise of a tenth of a second correlates by a fortieth.
    return OWN_DRAWS.verdict(abs(alike) < 0.5, f"the noise of two utterances correlates by {alike:.3g}", value=alike)


def other_seeds(seeds: Tensor) -> Tensor:
    """Two seeds: of the first utterance, and another. Shape: (B,) -> (2,)."""
    return torch.cat([seeds[:1], derive(seeds[:1], step=Key.ANOTHER_SEED)])


class Witness(Recognizer):
    """A recogniser that counts the draws of which its loss is differentiated; it answers as the one inside."""

    def __init__(self, recognizer: Recognizer, seen: list[int] | None = None) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.seen = [] if seen is None else seen
        self.sample_rate = recognizer.sample_rate
        self.padding_invariant = recognizer.padding_invariant
        self.stochastic = recognizer.stochastic

    @property
    def inside(self) -> Recognizer:
        return self.recognizer

    def view(self, knowledge: str) -> Witness:
        view = self.recognizer.view(knowledge)
        return self if view is self.recognizer else Witness(view, self.seen)

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.feasible(lengths, targets)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        if waveforms.requires_grad and seeds is not None:
            self.seen.extend(seeds.tolist())
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)


def check_averages(attack: Attack, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> Check | None:
    """Of an attack of one iteration: different draws that its gradients were taken on, of each utterance that it took on.

    None where that is none. Shape: seeds (B,).
    """
    witness = Witness(recognizer)
    status = attack.generate(witness, batch, seeds=seeds).status
    attacked = sum(what is not Status.REFUSED for what in status)
    if not attacked:
        return None
    draws, named = len(set(witness.seen)) / attacked, attack.num_draws
    return AVERAGES.verdict(draws >= named, f"{draws:g} draws an iteration, {named} are named", value=draws)


def _losses(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor) -> Tensor:
    with torch.no_grad():
        return recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(texts), seeds=seeds).double()
