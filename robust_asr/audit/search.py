"""The budget at which a model breaks, found on a few utterances before anything is measured around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results import digest
from robust_asr.storage.partial import PartialState
from robust_asr.text.terminal import say
from robust_asr.types import AudioBatch, Broken

_WORDS = {
    Broken.UNPERTURBED: "is half wrong without an attack",
    Broken.SMALLEST: "breaks already at {eps:g}, the smallest budget",
    Broken.WITHIN: "breaks at {eps:.2g}",
    Broken.BEYOND: "holds up to {eps:g}, the largest budget",
}


def find_budget(
    search: BreakingPoint,
    recognizer: Recognizer,
    utterances: Sequence[AudioBatch],
    *,
    seed: int,
    folder: Path,
    identity: str,
    tell: Callable[[str], None] = say,
) -> dict[str, Any]:
    """The median budget at which utterances break: ``eps``, and what was found of each utterance.

    The state of each search is kept in ``folder``, so that a killed one goes on.

    Args:
        utterances: each a batch of its own, so that a model that hears its padding hears none.
        identity: a hash of model and settings, so that no other search takes up the state.

    Errors: ValueError where none of the utterances can be attacked.
    """
    found, notes = [], []
    for place, batch in enumerate(utterances, start=1):
        partial = PartialState(folder / f"search-{digest([identity, *batch.ids, seed])}.ckpt", every_seconds=30.0)
        made = search.generate(recognizer, batch, seeds=utterance_seeds(seed, batch.ids), partial=partial)
        if not made.facts[0]:
            notes.append(made.notes[0])
            continue
        outcome, eps = Broken(made.facts[0]["breaking"]), float(made.facts[0]["breaking_amplitude"])
        found.append({"id": batch.ids[0], "breaking": str(outcome), "eps": eps})
        tell(f"search {place}/{len(utterances)}: {batch.ids[0]} {_WORDS[outcome].format(eps=eps)}")
    if not found:
        raise ValueError(f"audio: none of the {len(utterances)} utterances that were tried can be attacked: {notes[0]}")
    return {"eps": median(entry["eps"] for entry in found), "searched": found}
