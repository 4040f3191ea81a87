"""The contract of an attack: a threat model, a goal and an optimiser, with public calls that verify the result.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from robust_asr.attacks.climbing import climbed, passes_to_climb
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.refusals import audio_reasons, check_precision, text_reasons
from robust_asr.attacks.verdict import AttackResult, judge, rows_that_pass_together
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Knowledge, Recognizer, check_knowledge
from robust_asr.randomness import Key, derive
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import ThreatModel
from robust_asr.types import AudioBatch, Status, Targets, check_audio

# One sentence for each status that an attack that ran can give an utterance; a row of the results carries it as its note.
_SENTENCES = {
    Status.ATTACKED: "",
    Status.BROKEN_OFF: "stopped where its gradient was no longer finite",
    Status.MASKED_GRADIENT: "its gradient was zero in every iteration",
}
_NO_SCORES = "the recogniser's scores of its audio are not finite"


@dataclass(frozen=True)
class Perturbation:
    """The return value of ``perturb``. Shape: waveforms (B, T); iterations and forwards (B,) int64, on any device.

    Attributes:
        status: the status of each utterance; an empty tuple if every utterance was attacked to the end.
        members: of an ensemble, the name of the attack that found each perturbation; else an empty tuple.
        facts: fields of the results that only this attack has, one dictionary of plain data for each utterance; else an empty
            tuple.
    """

    waveforms: Tensor
    iterations: Tensor
    forwards: Tensor
    status: tuple[Status, ...] = ()
    members: tuple[str, ...] = ()
    facts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Generated:
    """Attacked audio that was verified, and not judged yet. Shape: iterations and forwards (B,) int64, on the CPU.

    Attributes:
        batch: the attacked waveforms with the true texts and ids.
        texts: the text that each utterance was attacked with: its target, or its reference.
        status, notes: the status of each utterance, and a sentence that explains any status other than "attacked", else "".
        members: of an ensemble, the name of the attack that found each perturbation; else "".
        facts: fields of the results that only this attack has; empty for an utterance that was refused.
    """

    batch: AudioBatch
    texts: tuple[str, ...]
    iterations: Tensor
    forwards: Tensor
    status: tuple[Status, ...]
    notes: tuple[str, ...]
    members: tuple[str, ...]
    facts: tuple[dict[str, Any], ...]

    @property
    def waveforms(self) -> Tensor:
        """Shape: (B, T)."""
        return self.batch.waveforms


class Attack(ABC):
    """A frozen dataclass whose fields are its configuration; a subclass writes ``perturb`` and ``name``.

    Attributes:
        threat: the threat model, which says which perturbations are allowed.
        goal: the transcript that the attacker wants: a given text, or any text but the reference.
        knowledge: how much the attacker knows of a defence: ``exact``, ``straight_through`` or ``unaware``.
    """

    threat: ThreatModel
    goal: Goal = Untargeted()
    knowledge: Knowledge = "exact"
    # Whether perturb computes the loss of a text. Noise computes none, so its texts need not be writable by the recogniser.
    needs_targets: ClassVar[bool] = True
    # Whether perturb accepts perturbations ``start`` (B, T) that it goes on from.
    takes_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_knowledge(self.knowledge)

    @property
    def has_goal(self) -> bool:
        """Whether an utterance is left out where no transcript would be a success. Noise has no goal: it is only judged by one."""
        return self.needs_targets

    @abstractmethod
    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        """Compute the attack. Every utterance of the batch can be attacked: it is finite and audible, its target feasible.

        The recogniser is frozen, and ``attackers_view`` has been applied to it. The result may leave the threat model by
        rounding errors only; the caller verifies it and raises otherwise. An attack that takes minutes saves its state in
        ``partial`` and starts from the state that it finds there.

        Shape: seeds (B,) int64; ``targets`` of B texts.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """The attack's name in the papers' tables: ``PGD-7 targeted``."""

    def columns(self) -> dict[str, Any]:
        """``attack``, ``norm``, ``strength``, ``strength_unit`` as in the papers' tables, and ``knowledge``."""
        return {"attack": self.name, **self.threat.columns(), "knowledge": self.knowledge}

    @property
    def core(self) -> Attack:
        """Of an attack that is made of others, the one that stands for them in a short trial; else the attack itself."""
        return self

    def require(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> None:  # noqa: B027
        """Raise what ``perturb`` would raise because of the settings, on a few utterances, before many are attacked for hours.

        The recogniser is the attacker's view, as for ``perturb``, but not frozen yet.

        Errors: ValueError for settings that do not serve the recogniser.
        """

    def attackers_view(self, recognizer: Recognizer) -> Recognizer:
        """The recogniser that ``perturb`` is given. An attack without gradients returns an object that only answers queries."""
        return recognizer.view(self.knowledge)

    def of_epoch(self, *, seed: int, epoch: int) -> Self:
        """The attack to use in an epoch of training: the attack itself, unless its threat model is redrawn every epoch."""
        threat = self.threat.of_epoch(seed=seed, epoch=epoch)
        return self if threat is self.threat else replace(self, threat=threat)

    @final
    def __call__(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> AttackResult:
        """Attack each utterance independently, verify the result, and judge it on random draws that the attack never saw.

        An utterance that cannot be attacked is returned unchanged, with a note: audio that is not finite or not within [-1, 1], or
        longer than the recogniser hears, silence under a bound on the SNR, a text that the recogniser cannot write or that does
        not fit into the audio; untargeted, a reference without words.

        Shape: seeds (B,) int64.
        Errors: AssertionError if the attack left its threat model, which is a defect of the attack, never of the input.
        """
        return self.verdict(recognizer, batch, self.generate(recognizer, batch, seeds=seeds), seeds=seeds)

    @final
    def generate(
        self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor, partial: Partial | None = None
    ) -> Generated:
        """Make and verify the attacked audio, without a verdict. Systems with the same attacker's view can share the audio.

        Under a bound on each sample, the difference from the clean audio, computed exactly, is never above the bound.

        Shape: seeds (B,) int64.
        Errors: ValueError for audio that is not what ``AudioBatch`` describes, or a recogniser without a gradient in its audio.
        """
        check_audio(batch.waveforms, batch.lengths)
        check_precision(recognizer, batch)
        texts = self.goal.texts(batch, seeds=seeds)
        with frozen_for_attack(recognizer):
            known = self.attackers_view(recognizer)
            status, notes = self._refusals(known, batch, texts)
            waveforms = batch.waveforms.clone()
            iterations, forwards = torch.zeros(2, len(batch), dtype=torch.long)
            members = [""] * len(batch)
            facts: list[dict[str, Any]] = [{} for _ in range(len(batch))]
            possible = [row for row, given in enumerate(status) if given is not Status.REFUSED]
            for number, rows in enumerate(rows_that_pass_together(known, batch, possible)):
                part = batch.select(rows)
                made = self._made(
                    known, part, [texts[row] for row in rows], seeds[rows], (partial or NOWHERE).part(str(number))
                )
                inside = self.threat.within(made.waveforms.detach().to(waveforms), part)
                waveforms[rows, : inside.shape[1]] = inside
                iterations[rows], forwards[rows] = made.iterations.cpu(), made.forwards.cpu()
                for row, given in zip(rows, made.status, strict=bool(made.status)):
                    status[row], notes[row] = given, _SENTENCES[given]
                for row, member in zip(rows, made.members, strict=bool(made.members)):
                    members[row] = member
                for row, known_of_it in zip(rows, made.facts, strict=bool(made.facts)):
                    facts[row] = known_of_it
        attacked = batch.replace(waveforms)
        return Generated(
            attacked, texts, iterations, forwards, tuple(status), tuple(notes), tuple(members), tuple(facts)
        )

    def _made(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        """The verified result of ``perturb`` for utterances that share a pass; a result that a killed run saved is reused."""
        saved = partial.load()
        if saved is not None and saved.get("finished"):
            made = Perturbation(*(saved[name] for name in ("waveforms", "iterations", "forwards")))
            made = replace(made, status=tuple(map(Status, saved["status"])), members=tuple(saved["members"]))
            made = replace(made, facts=tuple(saved.get("facts", ())))
        else:
            made = self._new(recognizer, batch, texts, seeds, partial)
            partial.keep(lambda: {"finished": True, **vars(made), "status": [str(given) for given in made.status]})
        self.verify(made.waveforms.to(batch.waveforms), batch)
        return made

    def _new(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], seeds: Tensor, partial: Partial
    ) -> Perturbation:
        """The result of ``perturb``; passes and rows say what it took to know the text that the attack climbs away from."""
        if not self.needs_targets:
            return self.perturb(recognizer, batch, None, seeds=seeds, partial=partial)
        chosen = climbed(self.goal, recognizer, batch, texts, seeds=seeds)
        made = self.perturb(recognizer, batch, chosen.targets, seeds=seeds, partial=partial)
        if not chosen.facts:
            return made
        rows = zip(made.facts or ({},) * len(batch), chosen.facts, strict=True)
        forwards = made.forwards + passes_to_climb(self.goal, recognizer)
        return replace(made, forwards=forwards, facts=tuple({**own, **more} for own, more in rows))

    @final
    def verdict(
        self,
        recognizer: Recognizer,
        batch: AudioBatch,
        generated: Generated,
        *,
        seeds: Tensor,
        draws: Key = Key.VERDICT,
    ) -> AttackResult:
        """Let a recogniser judge generated audio, on random draws that the attack never saw.

        Shape: seeds (B,) int64, the seeds that the audio was generated with. ``draws`` is the key of the verdict's random draws.
        """
        with frozen_for_attack(recognizer):
            judged = derive(seeds, step=draws)
            said = judge(recognizer, generated.batch, generated.texts, seeds=judged)
        compared = tuple(recognizer.compared(text) for text in generated.texts)
        reached = torch.tensor(self.goal.reached(compared, said.transcripts), dtype=torch.bool)
        status, notes = _with_scores(generated, said.scored.tolist())
        return AttackResult(
            batch=generated.batch,
            texts=generated.texts,
            compared_texts=compared,
            compared_references=tuple(recognizer.compared(text) for text in batch.texts),
            targeted=self.goal.targeted,
            success=reached & said.heard & said.scored,
            loss=said.losses,
            size=self.threat.size(generated.waveforms - batch.waveforms, batch).cpu(),
            iterations=generated.iterations,
            forwards=generated.forwards,
            transcripts=said.transcripts,
            status=status,
            notes=notes,
            members=generated.members,
            facts=generated.facts,
        )

    @final
    def verify(self, waveforms: Tensor, batch: AudioBatch) -> None:
        """Check attacked waveforms (B, T): an AssertionError names the utterances that the threat model does not allow."""
        inside = self.threat.contains(waveforms, batch)
        if not bool(inside.all()):
            ids = [utterance for utterance, flag in zip(batch.ids, inside.tolist(), strict=True) if not flag]
            raise AssertionError(f"{self.name} left its threat model {self.threat} on {', '.join(ids)}")

    def _refusals(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str]
    ) -> tuple[list[Status], list[str]]:
        """The status of each utterance before the attack, and the reason where it is refused; "" where it can be attacked."""
        reasons = audio_reasons(self.threat, recognizer, batch)
        if self.has_goal:
            pairs = zip(reasons, texts, strict=True)
            reasons = [reason or self.goal.unattackable(recognizer.compared(text)) for reason, text in pairs]
        if self.needs_targets:
            possible = [row for row, reason in enumerate(reasons) if not reason]
            wanted = zip(possible, text_reasons(recognizer, batch.lengths, texts, possible), strict=True)
            for row, reason in wanted:
                reasons[row] = reason
        status = [Status.REFUSED if reason else Status.ATTACKED for reason in reasons]
        return status, [f"not attacked: {reason}" if reason else "" for reason in reasons]


def _with_scores(generated: Generated, scored: Sequence[bool]) -> tuple[tuple[Status, ...], tuple[str, ...]]:
    """Status and notes, where scores that are not finite come before what the attack made of them."""
    kept = [
        fine or given in (Status.REFUSED, Status.BROKEN_OFF)
        for fine, given in zip(scored, generated.status, strict=True)
    ]
    status = (given if keep else Status.BROKEN_OFF for keep, given in zip(kept, generated.status, strict=True))
    notes = (note if keep else _NO_SCORES for keep, note in zip(kept, generated.notes, strict=True))
    return tuple(status), tuple(notes)
