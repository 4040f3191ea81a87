"""The utterances to train on: several corpora as one, within a range of lengths, at several speeds."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from lhotse.cut import MonoCut

from datamodules.collate import perturbed
from datamodules.manifest import Manifest


@dataclass(frozen=True)
class Selection:
    """Which utterances are trained on. Units: seconds; speeds are factors, 1.0 is the utterance itself.

    Errors: ValueError names the field.
    """

    min_seconds: float = 0.1
    max_seconds: float = 35.0
    speeds: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            bounds = f"{self.min_seconds} and {self.max_seconds}"
            raise ValueError(f"min_seconds and max_seconds must be ordered and not negative, found {bounds}")

    def holds(self, seconds: float) -> bool:
        return self.min_seconds <= seconds <= self.max_seconds

    def copies(self, cuts: Iterable[MonoCut]) -> Iterator[MonoCut]:
        """The cuts in range, each at every speed."""
        for cut in cuts:
            if self.holds(cut.duration):
                for speed in self.speeds:
                    yield perturbed(cut, speed)


def fingerprint(names: Iterable[str], durations: np.ndarray) -> str:
    """Of what is trained on: it changes with every name and every length, and with their order."""
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(np.ascontiguousarray(durations, dtype=np.float64).tobytes())
    return digest.hexdigest()


@dataclass
class Inventory:
    """The lengths of the selected utterances, and how many were left out.

    Attributes:
        seconds: of each selected utterance.
        left_out: number of utterances out of range; the first is described in ``example``.
    """

    selection: Selection
    seconds: list[float] = field(default_factory=list)
    left_out: int = 0
    example: str = ""
    _ids: set[str] = field(default_factory=set)

    def add(self, cut: MonoCut, source: object) -> None:
        if cut.id in self._ids:
            raise ValueError(f"{source}: cut {cut.id!r}: field 'id' occurs in another training manifest too")
        self._ids.add(cut.id)
        if self.selection.holds(cut.duration):
            self.seconds.append(cut.duration)
        else:
            self.example = self.example or f"{cut.id} with {cut.duration:.2f} s"
            self.left_out += 1

    def durations(self) -> np.ndarray:
        """Seconds of every utterance at every speed. ValueError if there is none."""
        if not self.seconds:
            low, high = self.selection.min_seconds, self.selection.max_seconds
            raise ValueError(f"train: no utterance lies between min_seconds {low:g} and max_seconds {high:g}")
        return np.concatenate([np.array(self.seconds) / speed for speed in self.selection.speeds])

    @property
    def fingerprint(self) -> str:
        return fingerprint(sorted(self._ids), self.durations())

    def __str__(self) -> str:
        durations = self.durations()
        speeds = len(self.selection.speeds)
        lines = f"{durations.sum() / 3600:.2f} hours, {len(durations)} utterances"
        lines += f" ({speeds} speeds of {len(self.seconds)})" if speeds > 1 else ""
        if self.left_out:
            low, high = self.selection.min_seconds, self.selection.max_seconds
            lines += f"; {self.left_out} outside {low:g} to {high:g} s left out, the first is {self.example}"
        return lines


class TrainingSet:
    """The selected utterances of several manifests, read anew at every iteration and evenly mixed; ``durations`` in that order.

    Errors: ValueError names the manifest, the cut and the field; all manifests are checked here, before any audio is
    opened.
    """

    def __init__(self, manifests: Sequence[Manifest], selection: Selection) -> None:
        self.manifests, self.selection = tuple(manifests), selection
        self.inventory = Inventory(selection)
        self._sizes = []
        for manifest in self.manifests:
            before = len(self.inventory.seconds)
            for cut in manifest.verified():
                self.inventory.add(cut, manifest.path)
            self._sizes.append(len(self.inventory.seconds) - before)
        self.durations = self._in_order(self.inventory.durations())

    @property
    def fingerprint(self) -> str:
        return self.inventory.fingerprint

    def _in_order(self, durations: np.ndarray) -> np.ndarray:
        """The seconds of every utterance at every speed, from the inventory's order to that of an iteration."""
        places = np.concatenate([(np.arange(size) + 0.5) / size for size in self._sizes])
        manifests = np.repeat(np.arange(len(self._sizes)), self._sizes)
        order = np.lexsort((manifests, places))
        return durations.reshape(len(self.selection.speeds), -1)[:, order].T.reshape(-1)

    def __iter__(self) -> Iterator[MonoCut]:
        # An utterance's place is its share of its manifest: a small corpus is spread over the whole epoch.
        streams = [self._placed(index) for index in range(len(self.manifests))]
        yield from self.selection.copies(cut for _, _, cut in heapq.merge(*streams, key=lambda item: item[:2]))

    def _placed(self, index: int) -> Iterator[tuple[float, int, MonoCut]]:
        kept = (cut for cut in self.manifests[index] if self.selection.holds(cut.duration))
        for place, cut in enumerate(kept):
            yield (place + 0.5) / self._sizes[index], index, cut
