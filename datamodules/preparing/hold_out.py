"""Speakers that are set aside from a part to train on, to validate on."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lhotse.cut import MonoCut

from datamodules.preparing.parts import Finding, Part


def check_hold_out(parts: Sequence[Part], num_speakers: int) -> None:
    """ValueError where the parts have no speakers to set aside; an utterance without a speaker among others is a finding."""
    training = [part for part in parts if is_training(part)]
    if not training:
        names = ", ".join(part.name for part in parts)
        raise ValueError(f"hold_out_speakers: no part of {names} begins with 'train'")
    for part in training:
        good = part.without_findings()
        speakers = {part.speakers[utterance] for utterance in good if utterance in part.speakers}
        if good and not speakers:
            raise ValueError(f"hold_out_speakers: part {part.name} does not say who speaks")
        if good and not 0 < num_speakers < len(speakers):
            raise ValueError(f"hold_out_speakers must be between 1 and {len(speakers) - 1}, found {num_speakers}")
        for utterance in good:
            if utterance not in part.speakers:
                message = f"{utterance} has no speaker, so it can be on neither side of --hold-out-speakers"
                part.findings.append(Finding(part.transcripts[utterance], message, utterance))


def held_out_parts(part: Part, cuts: Sequence[MonoCut], num_speakers: int, *, seed: int) -> dict[str, list[MonoCut]]:
    """The cuts of ``<part>-rest`` and ``<part>-dev``; none, and a finding, where findings left too few speakers."""
    found = len({cut.supervisions[0].speaker for cut in cuts})
    if found <= num_speakers:
        message = f"has {found} speakers with good utterances: no {part.name}-rest and {part.name}-dev are written"
        part.findings.append(Finding(part.name, message, is_fatal=True))
        return {}
    rest, dev = held_out(cuts, num_speakers, seed=seed)
    return {f"{part.name}-rest": rest, f"{part.name}-dev": dev}


def held_out(cuts: Sequence[MonoCut], num_speakers: int, *, seed: int) -> tuple[list[MonoCut], list[MonoCut]]:
    """Cuts of the other speakers, and of ``num_speakers`` chosen ones."""
    speakers = sorted({cut.supervisions[0].speaker for cut in cuts})
    if not 0 < num_speakers < len(speakers):
        raise ValueError(f"hold_out_speakers must be between 1 and {len(speakers) - 1}, found {num_speakers}")
    chosen = set(random.Random(seed).sample(speakers, num_speakers))
    return (
        [cut for cut in cuts if cut.supervisions[0].speaker not in chosen],
        [cut for cut in cuts if cut.supervisions[0].speaker in chosen],
    )


def is_training(part: Part) -> bool:
    return part.name.startswith("train")
