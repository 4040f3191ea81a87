"""What an attack is: a threat model, a goal and an optimiser, and a public call that verifies its own contract.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Recognizer
from robust_asr.randomness import derive
from robust_asr.threat import ThreatModel, in_box
from robust_asr.types import AudioBatch, Targets

# Draws of the verdict: far from the step and draw numbers that attacks use.
_VERDICT = 2**40


@dataclass(frozen=True)
class Perturbation:
    """What ``perturb`` found. Shape: waveforms (B, T); iterations and forwards (B,) int64, on any device.

    Attributes:
        notes: one sentence where an utterance's attack broke off, else ""; empty where none did.
    """

    waveforms: Tensor
    iterations: Tensor
    forwards: Tensor
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of a batch, measured on the waveforms that it returns.

    Shape: every tensor (B,), on the CPU; ``batch`` holds the attacked waveforms with the true texts and ids.

    Attributes:
        texts: what each utterance was attacked with: its target, or its reference.
        targeted: whether ``texts`` are targets.
        success: whether the goal was reached, on draws that the attack never saw.
        loss: of ``texts``, in nats, on the same draws; nan where it is not defined.
        size: of the perturbation, in the unit of the threat model.
        iterations, forwards: spent on each utterance by the attack itself; a forward is one pass of one utterance through the
            recogniser, whether or not a gradient follows.
        hypotheses: what was heard for the verdict.
        notes: one sentence where an utterance could not be attacked, or its attack broke off, else "".
    """

    batch: AudioBatch
    texts: tuple[str, ...]
    targeted: bool
    success: Tensor
    loss: Tensor
    size: Tensor
    iterations: Tensor
    forwards: Tensor
    hypotheses: tuple[str, ...]
    notes: tuple[str, ...]


class Attack(ABC):
    """A frozen dataclass whose fields are its configuration; a subclass writes ``perturb`` and ``name``.

    Attributes:
        threat: which perturbations are allowed.
        goal: what the recogniser shall hear.
        knowledge: what the attacker knows of a defence: ``exact``, ``straight_through`` or ``unaware``.
    """

    threat: ThreatModel
    goal: Goal = Untargeted()
    knowledge: str = "exact"
    # Whether perturb asks for losses of texts; noise does not.
    needs_targets: ClassVar[bool] = True

    @abstractmethod
    def perturb(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor) -> Perturbation:
        """The attack itself. Every utterance of the batch can be attacked: finite, audible, its target feasible.

        The recogniser is frozen and is what the attacker knows of it. The result may leave the threat model by rounding
        only: the caller verifies, and raises.

        Shape: seeds (B,) int64; ``targets`` of B texts.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """As the papers' tables write it: ``PGD-7 targeted``."""

    def columns(self) -> dict[str, Any]:
        """``attack``, ``norm``, ``strength``, ``strength_unit`` as in the papers' tables, and ``knowledge``."""
        return {"attack": self.name, **self.threat.columns(), "knowledge": self.knowledge}

    def __call__(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> AttackResult:
        """Attack each utterance alone, verify, and let the recogniser judge on fresh draws.

        What cannot be attacked - audio that is not finite or not within [-1, 1], silence under a bound on the SNR, a text that
        the recogniser cannot write or that does not fit into the audio - is returned as it came, with a note.

        Shape: seeds (B,) int64.
        Errors: AssertionError if the attack left its threat model: a defect of the attack, never of the input.
        """
        texts = self.goal.texts(batch, seeds=seeds)
        with frozen_for_attack(recognizer):
            found = self._perturb_each(recognizer, batch, texts, seeds=seeds)
            attacked = batch.replace(found.waveforms)
            loss, hypotheses = judge(recognizer, attacked, texts, seeds=derive(seeds, step=_VERDICT))
        return AttackResult(
            batch=attacked,
            texts=texts,
            targeted=self.goal.targeted,
            success=torch.tensor(self.goal.reached(texts, hypotheses), dtype=torch.bool),
            loss=loss,
            size=self.threat.size(attacked.waveforms - batch.waveforms, batch).cpu(),
            iterations=found.iterations,
            forwards=found.forwards,
            hypotheses=hypotheses,
            notes=found.notes,
        )

    def generate(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> Perturbation:
        """The same attack, verified, without the verdict: for training, where decoding would cost more than the attack.

        Shape: seeds (B,) int64.
        """
        with frozen_for_attack(recognizer):
            return self._perturb_each(recognizer, batch, self.goal.texts(batch, seeds=seeds), seeds=seeds)

    def _perturb_each(
        self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor
    ) -> Perturbation:
        """Every utterance that can be attacked. Shape: seeds (B,); the counts of the result are on the CPU."""
        known = recognizer.view(self.knowledge) if hasattr(recognizer, "view") else recognizer
        notes = self._notes(known, batch, texts)
        waveforms = batch.waveforms.clone()
        iterations, forwards = torch.zeros(2, len(batch), dtype=torch.long)
        for rows in _groups(recognizer, batch, [row for row, note in enumerate(notes) if not note]):
            part = batch.select(rows)
            targets = known.targets([texts[row] for row in rows]) if self.needs_targets else None
            found = self.perturb(known, part, targets, seeds=seeds[rows])
            self._verify(found.waveforms, part)
            waveforms[rows, : found.waveforms.shape[1]] = found.waveforms.detach()
            iterations[rows], forwards[rows] = found.iterations.cpu(), found.forwards.cpu()
            for row, note in zip(rows, found.notes, strict=bool(found.notes)):
                notes[row] = note
        return Perturbation(waveforms, iterations, forwards, tuple(notes))

    def _verify(self, waveforms: Tensor, batch: AudioBatch) -> None:
        inside = self.threat.contains(waveforms, batch)
        if not bool(inside.all()):
            ids = [utterance for utterance, flag in zip(batch.ids, inside.tolist(), strict=True) if not flag]
            raise AssertionError(f"{self.name} left its threat model {self.threat} on {', '.join(ids)}")

    def _notes(self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str]) -> list[str]:
        """Why an utterance cannot be attacked, "" where it can."""
        notes = _audio_notes(self.threat, batch)
        if self.needs_targets:
            for row, text in enumerate(texts):
                notes[row] = notes[row] or _text_note(recognizer, batch.lengths[row : row + 1], text)
        return notes


def _audio_notes(threat: ThreatModel, batch: AudioBatch) -> list[str]:
    found = {
        "its audio is not finite": ~batch.waveforms.isfinite().all(1),
        "it has no audio": batch.lengths == 0,
        "its audio leaves [-1, 1] or its padding is not zero": ~in_box(batch.waveforms, batch),
        "it is silent, which has no signal-to-noise ratio": ~threat.defined(batch),
    }
    rows = torch.stack(list(found.values()), 1).tolist()
    return [next((f"not attacked: {why}" for why, flag in zip(found, row, strict=True) if flag), "") for row in rows]


def _text_note(recognizer: Recognizer, length: Tensor, text: str) -> str:
    try:
        targets = recognizer.targets([text])
    except ValueError as error:
        return f"not attacked: {error}"
    if not bool(recognizer.feasible(length, targets).all()):
        return f"not attacked: the text {text!r} does not fit into {int(length)} samples"
    return ""


def judge(
    recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor
) -> tuple[Tensor, tuple[str, ...]]:
    """The loss of each text, nan where it is not defined, and what is heard. Shape: -> (B,) on the CPU, B hypotheses."""
    losses = torch.full((len(batch),), torch.nan)
    hypotheses = [""] * len(batch)
    heard_at_all = (batch.waveforms.isfinite().all(1) & (batch.lengths > 0)).tolist()
    finite = [row for row, flag in enumerate(heard_at_all) if flag]
    for rows in _groups(recognizer, batch, finite):
        part = batch.select(rows)
        heard = recognizer.transcribe(part.waveforms, part.lengths, seeds=seeds[rows])
        for row, transcript in zip(rows, heard, strict=True):
            hypotheses[row] = transcript.text
        writable = [index for index, row in enumerate(rows) if _writable(recognizer, texts[row])]
        if writable:
            kept = part.select(writable)
            places = [rows[index] for index in writable]
            targets = recognizer.targets([texts[row] for row in places])
            with torch.no_grad():
                losses[places] = (
                    recognizer.loss(kept.waveforms, kept.lengths, targets, seeds=seeds[places]).cpu().float()
                )
    return losses, tuple(hypotheses)


def _writable(recognizer: Recognizer, text: str) -> bool:
    try:
        recognizer.targets([text])
    except ValueError:
        return False
    return True


def _groups(recognizer: Recognizer, batch: AudioBatch, rows: list[int]) -> list[list[int]]:
    """All rows at once; for a recogniser whose result depends on padding, rows of equal length."""
    if recognizer.padding_invariant:
        return [rows] if rows else []
    groups: dict[int, list[int]] = {}
    lengths = batch.lengths.tolist()
    for row in rows:
        groups.setdefault(lengths[row], []).append(row)
    return list(groups.values())
