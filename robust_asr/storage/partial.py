"""The state of unfinished long work, saved regularly, so that a killed run loses minutes and not everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor

from robust_asr.storage import sealed
from robust_asr.storage.archive import map_tensors

State = dict[str, Any]


class Partial(Protocol):
    """A place where long work saves its state while it runs. A state is a dictionary of tensors and plain data."""

    def load(self) -> State | None:
        """The state that was saved last, or None if nothing was saved."""

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Save the state that ``state()`` returns, unless the last save was a moment ago; ``now`` saves in any case."""

    def part(self, name: str) -> Partial:
        """The place where a part of the work saves its own state."""


class Forgetful:
    """Saves nothing: for work that is never resumed."""

    def load(self) -> None:
        return None

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        del state, now

    def part(self, name: str) -> Self:
        del name
        return self


NOWHERE = Forgetful()


class Restarted:
    """Saves to ``partial`` but loads nothing: for the second stage of a work whose saved state belongs to the first stage."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial

    def load(self) -> None:
        return None

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        self._partial.keep(state, now=now)

    def part(self, name: str) -> Partial:
        return self._partial.part(name)


class PartialState:
    """The state of one piece of work in a sealed file, which is written completely or not at all and checked when read.

    Args:
        path: the file. Its name must contain a hash of everything that the work depends on (weights, settings, audio), so that
            no other work ever loads this state.
        every_seconds: the time between two writes. A kill loses at most this time plus the time of one step.
    """

    def __init__(self, path: Path, *, every_seconds: float = 60.0) -> None:
        self.path = path
        self.every_seconds = every_seconds
        self._last = time.monotonic()

    def load(self) -> State | None:
        return sealed.materialize(sealed.read(self.path))["state"] if self.path.exists() else None

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        if not now and time.monotonic() - self._last < self.every_seconds:
            return
        # Tensors are saved from the CPU, so that a machine without this device can load them.
        sealed.write({"state": map_tensors(state(), Tensor.cpu)}, self.path)
        # The clock starts after writing, so that slow writing cannot take up all the time.
        self._last = time.monotonic()

    def part(self, name: str) -> PartialState:
        return PartialState(self.path.with_name(f"{self.path.stem}-{name}.ckpt"), every_seconds=self.every_seconds)

    def forget(self) -> None:
        """Delete the saved state and the states of all parts; called when the results of the work are on disk."""
        for path in [self.path, *self.path.parent.glob(f"{self.path.stem}-*.ckpt")]:
            path.unlink(missing_ok=True)
