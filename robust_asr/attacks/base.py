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
from robust_asr.threat import ThreatModel
from robust_asr.types import AudioBatch, Targets

# Draws of the verdict: far from the step and draw numbers that attacks use.
_VERDICT = 2**40


@dataclass(frozen=True)
class Perturbation:
    """What ``perturb`` found. Shape: waveforms (B, T); iterations and forwards (B,) int64, on any device."""

    waveforms: Tensor
    iterations: Tensor
    forwards: Tensor


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of a batch, measured on the waveforms that it returns.

    Shape: every tensor (B,), on the CPU; ``batch`` holds the attacked waveforms with the true texts and ids.

    Attributes:
        texts: what each utterance was attacked with: its target, or its reference.
        success: whether the goal was reached, on draws that the attack never saw.
        loss: of ``texts``, in nats, on the same draws; nan where it is not defined.
        size: of the perturbation, in the unit of the threat model.
        iterations, forwards: spent on each utterance by the attack itself; a forward is one pass of one utterance through the
            recogniser, whether or not a gradient follows.
        hypotheses: what was heard for the verdict.
        notes: one sentence where an utterance could not be attacked, else "".
    """

    batch: AudioBatch
    texts: tuple[str, ...]
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

        What cannot be attacked - audio that is not finite, a text that the recogniser cannot write or that does not fit into
        the audio - is returned as it came, with a note.

        Shape: seeds (B,) int64.
        Errors: AssertionError if the attack left its threat model: a defect of the attack, never of the input.
        """
        texts = self.goal.texts(batch, seeds=seeds)
        with frozen_for_attack(recognizer):
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
            attacked = batch.replace(waveforms)
            loss, hypotheses = judge(recognizer, attacked, texts, seeds=derive(seeds, step=_VERDICT))
        return AttackResult(
            batch=attacked,
            texts=texts,
            success=torch.tensor(self.goal.reached(texts, hypotheses), dtype=torch.bool),
            loss=loss,
            size=self.threat.size(waveforms - batch.waveforms, batch).cpu(),
            iterations=iterations,
            forwards=forwards,
            hypotheses=hypotheses,
            notes=notes,
        )

    def _verify(self, waveforms: Tensor, batch: AudioBatch) -> None:
        inside = self.threat.contains(waveforms, batch)
        if not bool(inside.all()):
            ids = [utterance for utterance, flag in zip(batch.ids, inside.tolist(), strict=True) if not flag]
            raise AssertionError(f"{self.name} left its threat model {self.threat} on {', '.join(ids)}")

    def _notes(self, recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(self._note(recognizer, batch.select([row]), text) for row, text in enumerate(texts))

    def _note(self, recognizer: Recognizer, utterance: AudioBatch, text: str) -> str:
        if not bool(utterance.waveforms.isfinite().all()):
            return "not attacked: its audio is not finite"
        if len(utterance.lengths) and not int(utterance.lengths[0]):
            return "not attacked: it has no audio"
        if not self.needs_targets:
            return ""
        try:
            targets = recognizer.targets([text])
        except ValueError as error:
            return f"not attacked: {error}"
        if not bool(recognizer.feasible(utterance.lengths, targets).all()):
            return f"not attacked: the text {text!r} does not fit into {int(utterance.lengths[0])} samples"
        return ""


def judge(
    recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str], *, seeds: Tensor
) -> tuple[Tensor, tuple[str, ...]]:
    """The loss of each text, nan where it is not defined, and what is heard. Shape: -> (B,) on the CPU, B hypotheses."""
    losses = torch.full((len(batch),), torch.nan)
    hypotheses = [""] * len(batch)
    finite = [row for row in range(len(batch)) if bool(batch.waveforms[row].isfinite().all()) and batch.lengths[row]]
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
    for row in rows:
        groups.setdefault(int(batch.lengths[row]), []).append(row)
    return list(groups.values())
