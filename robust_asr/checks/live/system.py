"""All live checks of a system and an attack, on a few utterances.

Legend: B utterances.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack
from robust_asr.attacks.verdict import fits
from robust_asr.checks.live.draws import (
    REPEATS,
    check_averages,
    check_one_pass,
    check_own_draws,
    check_own_noise,
    check_repeats,
)
from robust_asr.checks.live.loudness import EVERYWHERE
from robust_asr.checks.live.passage import PADDING, check_bits, check_defenses, check_padding
from robust_asr.checks.live.probes import check_gradient
from robust_asr.checks.live.states import check_modes, check_state, state_of, watched_modes
from robust_asr.checks.live.writing import WRITES, check_writing
from robust_asr.checks.verdicts import Check
from robust_asr.gradients import frozen_for_attack
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.types import AudioBatch

# The checks shorten an attack to this many iterations, because a fault of mode, state or draws shows in the first of them.
_ITERATIONS = 3
_COUNTS = ("num_iterations", "masking_iterations", "iterations", "num_queries")


def check_system(recognizer: Recognizer, attack: Attack, batch: AudioBatch, *, seeds: Tensor) -> list[Check]:
    """All live checks of a system under one attack.

    The batch should be small: the checks of the system cost up to a hundred passes of the batch, most of them in the descent of
    ``check_writing``, those of the attack about fifty. The model and the global random generators are unchanged afterwards.

    Shape: seeds (B,), the seeds that the evaluation gives to the utterances.
    """
    return check_recognizer(recognizer, batch, seeds=seeds) + check_attack(recognizer, attack, batch, seeds=seeds)


def check_recognizer(recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> list[Check]:
    """The live checks that do not depend on an attack. Shape: seeds (B,)."""
    with _apart(batch), frozen_for_attack(recognizer):
        rows = _possible(recognizer, batch, batch.texts)
        if not rows:
            return [question.not_run("no utterance has audio for its text") for question in (REPEATS, PADDING, WRITES)]
        # A recogniser whose result depends on padding is checked on one utterance, which needs none.
        rows = rows if recognizer.padding_invariant else rows[:1]
        texts, given = [batch.texts[row] for row in rows], {"seeds": seeds[rows]}
        chosen = batch.select(rows)
        checks = [
            check_repeats(recognizer, chosen, texts, **given),
            check_one_pass(recognizer, chosen, texts, **given),
            check_own_draws(recognizer, chosen, texts, **given),
        ]
        if recognizer.padding_invariant:
            checks.append(check_padding(recognizer, chosen, texts, **given))
        checks.append(check_defenses(recognizer, chosen, texts, **given))
        # Of a vote the part that has a loss: a single draw.
        checks.append(check_writing(recognizer.view("exact"), chosen, texts, **given))
    return [check for check in checks if check is not None]


def check_attack(
    recognizer: Recognizer,
    attack: Attack,
    batch: AudioBatch,
    *,
    seeds: Tensor,
    asked: dict[Hashable, list[Check]] | None = None,
) -> list[Check]:
    """The live checks that depend on the attack; for noise and saved adversarial sets only some apply. Shape: seeds (B,).

    ``asked`` holds what is known of the gradients that earlier attacks on the same recogniser and batch follow: that of a view
    and a text is the same at every budget, and what part of the audio has none is the same for every text.

    Errors: ValueError for settings of the attack that do not serve the recogniser (``Attack.require``).
    """
    knowledge = attack.columns().get("knowledge")
    with _apart(batch):
        checks = []
        if attack.needs_targets:
            rows = _possible(recognizer, batch, attack.goal.texts(batch, seeds=seeds))
            attack.require(attack.attackers_view(recognizer), batch.select(rows), seeds=seeds[rows])
        if attack.needs_targets and knowledge in get_args(Knowledge):
            checks += _gradient(recognizer, attack, batch, seeds, {} if asked is None else asked)
        checks += _run(recognizer, attack, batch, seeds)
        if getattr(attack, "num_draws", 1) > 1 and attack.attackers_view(recognizer).stochastic:
            checks.append(check_averages(shortened(attack, 1), recognizer, batch, seeds=seeds))
        if not knowledge:
            checks.append(check_own_noise(attack, recognizer, batch, seeds=seeds))
    return [check for check in checks if check is not None]


def shortened(attack: Attack, most: int = _ITERATIONS) -> Attack:
    """The same attack with at most ``most`` iterations; an attack without a number of iterations stays as it is.

    Of an attack that is made of others it is the one that stands for them (``Attack.core``).
    """
    attack = attack.core
    counts = _iterations(attack)
    changes = {name: (most,) if isinstance(value, tuple) else min(value, most) for name, value in counts.items()}
    return replace(attack, **changes) if changes else attack


def _iterations(attack: Attack) -> dict[str, int | tuple[int, ...]]:
    """The fields of an attack that hold its number of iterations, or a list of numbers to draw from."""
    names = [field.name for field in fields(attack)] if is_dataclass(attack) else []
    counts = {name: getattr(attack, name) for name in names if name in _COUNTS}
    return {name: value for name, value in counts.items() if isinstance(value, int | tuple)}


def _gradient(
    recognizer: Recognizer, attack: Attack, batch: AudioBatch, seeds: Tensor, asked: dict[Hashable, list[Check]]
) -> list[Check]:
    known = attack.attackers_view(recognizer)
    texts = tuple(attack.goal.texts(batch, seeds=seeds))
    view = (type(attack).attackers_view, attack.knowledge)
    if (*view, texts) not in asked:
        everywhere = next(iter(asked.get(view, [])), None)
        with frozen_for_attack(recognizer):
            rows = _possible(known, batch, texts)
            part, given = batch.select(rows), [texts[row] for row in rows]
            found = check_gradient(known, part, given, seeds=seeds[rows], everywhere=everywhere)
        asked[*view, texts] = found
        asked[view] = [check for check in found if check.name == EVERYWHERE.name and check.verdict != "not run"]
    return asked[*view, texts]


def _run(recognizer: Recognizer, attack: Attack, batch: AudioBatch, seeds: Tensor) -> list[Check | None]:
    """Run the first iterations of the attack and check the model's modes, its state and the size of the perturbation."""
    if attack.needs_targets and not _iterations(attack):
        # An attack that names no number of iterations may run long; one utterance shows modes and state as well.
        batch, seeds = batch.select([0]), seeds[:1]
    before = state_of(recognizer)
    with watched_modes(recognizer) as modes:
        result = shortened(attack)(recognizer, batch, seeds=seeds)
    aimed_at_dropout = is_dataclass(attack) and any("dropout" in field.name for field in fields(attack))
    return [
        check_state(before, recognizer),
        None if aimed_at_dropout else check_modes(modes),
        check_bits(batch, result.batch.waveforms),
    ]


def _possible(recognizer: Recognizer, batch: AudioBatch, texts: Sequence[str]) -> list[int]:
    """The rows of the utterances whose loss is defined."""
    audible = batch.waveforms.isfinite().all(1) & (batch.lengths > 0)
    rows = [row for row, flag in enumerate(audible.tolist()) if flag]
    return [row for row in rows if fits(recognizer, batch.lengths[row : row + 1], texts[row])]


@contextmanager
def _apart(batch: AudioBatch) -> Iterator[None]:
    """Random numbers drawn inside the ``with`` block leave the global generators unchanged."""
    devices = [batch.waveforms.get_device()] if batch.waveforms.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        yield
