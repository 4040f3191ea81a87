"""Which pairs of attacked and clean audio an epoch brings, and which stretch of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from datamodules.manifest import Manifest
from datamodules.sampling import TrainingSampler
from datamodules.training_set import Selection, fingerprint
from robust_asr.checkpoint import RECOGNIZER, part_of
from robust_asr.results import read_description
from robust_asr.storage import sealed


class PairedSet:
    """The pairs of several adversarial sets, each with the clean utterance it was made from.

    A pair is the attacked cut, whose ``custom`` holds ``clean`` (the clean cut), ``start`` and ``size`` in samples,
    ``stays_clean`` and ``text``.

    Args:
        sets: name -> (manifest, weight).
        corpus: manifests in which the clean utterances are looked up.

    Errors: ValueError names the manifest, the cut and the field; everything is checked here, before any audio is opened.
    """

    def __init__(
        self,
        sets: Mapping[str, tuple[Manifest, float]],
        corpus: Sequence[Manifest],
        selection: Selection,
        *,
        sample_rate: int,
        clean_share: float,
        crop_seconds: float | None,
        seed: int,
    ) -> None:
        self.clean_share, self.seed = clean_share, seed
        self._weights = {name: weight for name, (_, weight) in sets.items()}
        self._crop = None if crop_seconds is None else round(crop_seconds * sample_rate)
        attacked = {name: list(manifest.verified()) for name, (manifest, _) in sets.items()}
        wanted = {cut.id for cuts in attacked.values() for cut in cuts}
        clean = {cut.id: cut for manifest in corpus for cut in manifest.verified() if cut.id in wanted}
        self.pairs = {
            name: [
                (cut, _partner(cut, clean, sets[name][0].path, sample_rate))
                for cut in cuts
                if selection.holds(cut.duration)
            ]
            for name, cuts in attacked.items()
        }
        if empty := [name for name, pairs in self.pairs.items() if not pairs]:
            low, high = selection.min_seconds, selection.max_seconds
            raise ValueError(f"sets: {empty[0]} has no utterance between min_seconds {low:g} and max_seconds {high:g}")
        self.durations = np.array([self._size(cut) / sample_rate for cuts in self.pairs.values() for cut, _ in cuts])

    def __str__(self) -> str:
        counts = ", ".join(f"{len(pairs)} of {name} x {self._weights[name]:g}" for name, pairs in self.pairs.items())
        return f"pairs: {counts}; {self.durations.sum() / 3600:.2f} hours, {self.clean_share:.0%} clean on both sides"

    @property
    def fingerprint(self) -> str:
        names = [f"{cut.id}@{name}" for name, pairs in self.pairs.items() for cut, _ in pairs]
        chosen = f"{self._weights} {self.clean_share} {self._crop} {self.seed}"
        return fingerprint([chosen, *names], self.durations)

    def of_epoch(self, epoch: int) -> Iterator[MonoCut]:
        """The pairs of an epoch, each set spread over the whole of it."""
        # A pair's place is its share of its set.
        placed = sorted(
            (
                ((place + 0.5) / len(pairs), name, place)
                for name, pairs in self.pairs.items()
                for place in range(len(pairs))
            )
        )
        for _, name, place in placed:
            cut, clean = self.pairs[name][place]
            for copy in range(self._num_copies(name, cut, epoch)):
                yield self._pair(cut, clean, f"{cut.id}@{name}" + (f"#{copy + 1}" if copy else ""), epoch)

    def _num_copies(self, name: str, cut: MonoCut, epoch: int) -> int:
        whole, rest = divmod(self._weights[name], 1)
        return int(whole) + (Random(f"copies-{self.seed}-{epoch}-{name}-{cut.id}").random() < rest)

    def _pair(self, cut: MonoCut, clean: MonoCut, name: str, epoch: int) -> MonoCut:
        random = Random(f"pair-{self.seed}-{epoch}-{name}")
        size, rate = self._size(cut), cut.recording.sampling_rate
        start = random.randrange(cut.recording.num_samples - size + 1)
        whole = size == cut.recording.num_samples
        custom = {
            "clean": clean,
            "start": start,
            "size": size,
            "stays_clean": random.random() < self.clean_share,
            "text": cut.supervisions[0].text if whole else "",
        }
        return fastcopy(cut, id=name, duration=size / rate, custom=custom)

    def _size(self, cut: MonoCut) -> int:
        num_samples = cut.recording.num_samples
        return num_samples if self._crop is None else min(num_samples, self._crop)


class PairSampler(TrainingSampler):
    """Batches of pairs. Each epoch has its own: copies by the weights of the sets, crops, and which pairs stay clean."""

    cuts: PairedSet

    def _cuts(self, epoch: int) -> Iterable[MonoCut]:
        return self.cuts.of_epoch(epoch)

    def _durations(self, epoch: int) -> Iterable[float]:
        return (pair.duration for pair in self.cuts.of_epoch(epoch))


def made_against(folder: Path) -> str:
    """Hash of the weights that an adversarial set was made against. ValueError where the folder holds no set."""
    description = read_description(folder)
    systems = {} if description is None else description["systems"]
    if len(systems) != 1:
        raise ValueError(f"{folder} holds no adversarial set: `python train.py predict` writes one")
    (system,) = systems.values()
    return str(system.get("description", {}).get("weights"))


def attacked_weights(path: str) -> str:
    """Hash of the weights of a checkpoint, as an adversarial set records it."""
    return part_of(sealed.read(path), RECOGNIZER, path)["weights_hash"]


def _partner(cut: MonoCut, clean: Mapping[str, MonoCut], source: Path, sample_rate: int) -> MonoCut:
    """The clean utterance of an attacked one; ValueError unless they are the same stretch of the same words."""
    partner = clean.get(cut.id)
    if partner is None:
        raise ValueError(
            f"{source}: cut {cut.id!r}: is in none of the parts to train on, so its clean audio is unknown"
        )
    for field, value, expected in (
        ("sampling_rate", cut.recording.sampling_rate, sample_rate),
        ("sampling_rate", partner.recording.sampling_rate, sample_rate),
        ("num_samples", cut.recording.num_samples, partner.recording.num_samples),
        ("text", cut.supervisions[0].text, partner.supervisions[0].text),
    ):
        if value != expected:
            raise ValueError(f"{source}: cut {cut.id!r}: field {field!r} is {value!r}, expected {expected!r}")
    return partner
