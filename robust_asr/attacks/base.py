"""What an attack is: a threat model, a goal and an optimiser, and public calls that verify their own contract.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.verdict import AttackResult, judge, rows_that_pass_together
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Knowledge, Recognizer, check_knowledge
from robust_asr.randomness import Key, derive
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import ThreatModel, in_box
from robust_asr.types import AudioBatch, Status, Targets

# What a status of an attack that ran means, in a sentence.
_SENTENCES = {
    Status.ATTACKED: "",
    Status.BROKEN_OFF: "stopped where its gradient was no longer finite",
    Status.MASKED_GRADIENT: "its gradient was zero in every iteration",
}


@dataclass(frozen=True)
class Perturbation:
    """What ``perturb`` returns. Shape: waveforms (B, T); iterations and forwards (B,) int64, on any device.

    Attributes:
        status: of each utterance; empty where all were attacked to the end.
    """

    waveforms: Tensor
    iterations: Tensor
    forwards: Tensor
    status: tuple[Status, ...] = ()


@dataclass(frozen=True)
class Generated:
    """Attacked audio that was verified, and not judged yet. Shape: iterations and forwards (B,) int64, on the CPU.

    Attributes:
        batch: the attacked waveforms with the true texts and ids.
        texts: what each utterance was attacked with: its target, or its reference.
        status, notes: what became of each utterance, and one sentence where that is not "attacked", else "".
    """

    batch: AudioBatch
    texts: tuple[str, ...]
    iterations: Tensor
    forwards: Tensor
    status: tuple[Status, ...]
    notes: tuple[str, ...]

    @property
    def waveforms(self) -> Tensor:
        """Shape: (B, T)."""
        return self.batch.waveforms


class Attack(ABC):
    """A frozen dataclass whose fields are its configuration; a subclass writes ``perturb`` and ``name``.

    Attributes:
        threat: which perturbations are allowed.
        goal: what the recogniser shall hear.
        knowledge: what the attacker knows of a defence: ``exact``, ``straight_through`` or ``unaware``.
    """

    threat: ThreatModel
    goal: Goal = Untargeted()
    knowledge: Knowledge = "exact"
    # Whether perturb asks for losses of texts; noise does not.
    needs_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_knowledge(self.knowledge)

    @abstractmethod
    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        """The attack itself. Every utterance of the batch can be attacked: finite, audible, its target feasible.

        The recogniser is frozen and is what ``attackers_view`` made of it. The result may leave the threat model by rounding
        only: the caller verifies, and raises. An attack of minutes keeps its state in
        ``partial`` and begins with what it finds there.

        Shape: seeds (B,) int64; ``targets`` of B texts.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """As the papers' tables write it: ``PGD-7 targeted``."""

    def columns(self) -> dict[str, Any]:
        """``attack``, ``norm``, ``strength``, ``strength_unit`` as in the papers' tables, and ``knowledge``."""
        return {"attack": self.name, **self.threat.columns(), "knowledge": self.knowledge}

    def attackers_view(self, recognizer: Recognizer) -> Recognizer:
        """All that ``perturb`` is given of a system. An attack without gradients overrides it with what answers queries only."""
        return recognizer.view(self.knowledge)

    def of_epoch(self, *, seed: int, epoch: int) -> Self:
        """The attack of an epoch of training: itself, unless its threat model is drawn anew in each."""
        threat = self.threat.of_epoch(seed=seed, epoch=epoch)
        return self if threat is self.threat else replace(self, threat=threat)

    @final
    def __call__(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> AttackResult:
        """Attack each utterance alone, verify, and let the recogniser judge on draws that the attack never saw.

        What cannot be attacked - audio that is not finite or not within [-1, 1], silence under a bound on the SNR, a text that
        the recogniser cannot write or that does not fit into the audio - is returned as it came, with a note.

        Shape: seeds (B,) int64.
        Errors: AssertionError if the attack left its threat model: a defect of the attack, never of the input.
        """
        return self.verdict(recognizer, batch, self.generate(recognizer, batch, seeds=seeds), seeds=seeds)

    @final
    def generate(
        self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor, partial: Partial | None = None
    ) -> Generated:
        """The attack, verified, without the verdict. Systems of which the attacker sees the same share what is generated.

        Shape: seeds (B,) int64.
        """
        texts = self.goal.texts(batch, seeds=seeds)
        with frozen_for_attack(recognizer):
            known = self.attackers_view(recognizer)
            status, notes = self._refusals(known, batch, texts)
            waveforms = batch.waveforms.clone()
            iterations, forwards = torch.zeros(2, len(batch), dtype=torch.long)
            possible = [row for row, what in enumerate(status) if what is not Status.REFUSED]
            for number, rows in enumerate(rows_that_pass_together(known, batch, possible)):
                part = batch.select(rows)
                made = self._made(
                    known, part, [texts[row] for row in rows], seeds[rows], (partial or NOWHERE).part(str(number))
                )
                waveforms[rows, : made.waveforms.shape[1]] = made.waveforms.detach().to(waveforms)
                iterations[rows], forwards[rows] = made.iterations.cpu(), made.forwards.cpu()
                for row, what in zip(rows, made.status, strict=bool(made.status)):
                    status[row], notes[row] = what, _SENTENCES[what]
        return Generated(batch.replace(waveforms), texts, iterations, forwards, tuple(status), tuple(notes))

    def _made(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        """What ``perturb`` makes of utterances that pass together, or made before a kill; verified."""
        kept = partial.load()
        if kept is not None and kept.get("finished"):
            made = Perturbation(*(kept[name] for name in ("waveforms", "iterations", "forwards")))
            made = replace(made, status=tuple(map(Status, kept["status"])))
        else:
            targets = recognizer.targets(texts) if self.needs_targets else None
            made = self.perturb(recognizer, batch, targets, seeds=seeds, partial=partial)
            partial.keep(lambda: {"finished": True, **vars(made), "status": [str(what) for what in made.status]})
        self.verify(made.waveforms.to(batch.waveforms), batch)
        return made

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
        """What a recogniser makes of generated audio, on draws that the attack never saw.

        Shape: seeds (B,) int64, those that the audio was generated with. ``draws`` keys the draws of the verdict.
        """
        with frozen_for_attack(recognizer):
            judged = derive(seeds, step=draws)
            losses, transcripts = judge(recognizer, generated.batch, generated.texts, seeds=judged)
        return AttackResult(
            batch=generated.batch,
            texts=generated.texts,
            targeted=self.goal.targeted,
            success=torch.tensor(self.goal.reached(generated.texts, transcripts), dtype=torch.bool),
            loss=losses,
            size=self.threat.size(generated.waveforms - batch.waveforms, batch).cpu(),
            iterations=generated.iterations,
            forwards=generated.forwards,
            transcripts=transcripts,
            status=generated.status,
            notes=generated.notes,
        )

    @final
    def verify(self, waveforms: Tensor, batch: AudioBatch) -> None:
        """AssertionError names the utterances whose attacked waveforms (B, T) are not allowed."""
        inside = self.threat.contains(waveforms, batch)
        if not bool(inside.all()):
            ids = [utterance for utterance, flag in zip(batch.ids, inside.tolist(), strict=True) if not flag]
            raise AssertionError(f"{self.name} left its threat model {self.threat} on {', '.join(ids)}")

    def _refusals(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str]
    ) -> tuple[list[Status], list[str]]:
        """Which utterances cannot be attacked, and why: "" where one can."""
        reasons = _audio_reasons(self.threat, batch)
        if self.needs_targets:
            possible = [row for row, reason in enumerate(reasons) if not reason]
            wanted = zip(possible, _text_reasons(recognizer, batch.lengths, texts, possible), strict=True)
            for row, reason in wanted:
                reasons[row] = reason
        status = [Status.REFUSED if reason else Status.ATTACKED for reason in reasons]
        return status, [f"not attacked: {reason}" if reason else "" for reason in reasons]


def _audio_reasons(threat: ThreatModel, batch: AudioBatch) -> list[str]:
    faults = {
        "its audio is not finite": ~batch.waveforms.isfinite().all(1),
        "it has no audio": batch.lengths == 0,
        "its audio leaves [-1, 1] or its padding is not zero": ~in_box(batch.waveforms, batch),
        "it is silent, which has no signal-to-noise ratio": ~threat.defined(batch),
    }
    rows = torch.stack(list(faults.values()), 1).tolist()
    return [next((why for why, flag in zip(faults, row, strict=True) if flag), "") for row in rows]


def _text_reasons(recognizer: Recognizer, lengths: Tensor, texts: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Of the utterances at ``rows``: why the recogniser cannot write a text, or its audio not carry it."""
    reasons = dict.fromkeys(rows, "")
    for row in rows:
        try:
            recognizer.targets([texts[row]])
        except ValueError as error:
            reasons[row] = str(error)
    writable = [row for row, reason in reasons.items() if not reason]
    if writable:
        # Of all at once: one look at the device instead of one an utterance.
        fits = recognizer.feasible(lengths[writable], recognizer.targets([texts[row] for row in writable])).tolist()
        for row, fit in zip(writable, fits, strict=True):
            reasons[row] = "" if fit else f"the text {texts[row]!r} does not fit into {int(lengths[row])} samples"
    return list(reasons.values())
