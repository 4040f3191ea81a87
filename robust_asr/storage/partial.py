"""What long work has reached so far, beside its results, so that a kill costs minutes and not the whole of it."""

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
    """Where a piece of work keeps its state while it runs: tensors and plain data."""

    def load(self) -> State | None:
        """The state that was kept last, None where there is none."""

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Ask for the state and keep it, unless one was kept a moment ago and it need not be ``now``."""

    def part(self, name: str) -> Partial:
        """Where a part of the work keeps its own state."""


class Forgetful:
    """Keeps nothing: for work that nobody will resume."""

    def load(self) -> None:
        return None

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        del state, now

    def part(self, name: str) -> Self:
        del name
        return self


NOWHERE = Forgetful()


class Restarted:
    """Keeps what it is told where ``partial`` does, and begins with nothing: for the next stage of the same work."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial

    def load(self) -> None:
        return None

    def keep(self, state: Callable[[], State], *, now: bool = False) -> None:
        self._partial.keep(state, now=now)

    def part(self, name: str) -> Partial:
        return self._partial.part(name)


class PartialState:
    """The state of one piece of work in a sealed file, written whole and checked when it is read.

    Args:
        path: named after a hash of all that the work depends on - weights, settings, audio - so that no state is ever taken up by
            work that it does not belong to.
        every_seconds: between two writes. A kill costs no more than this and the time of one step.
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
        # On the CPU: a file is read again on any machine.
        sealed.write({"state": map_tensors(state(), Tensor.cpu)}, self.path)
        # The time that writing takes is no part of the time until the next.
        self._last = time.monotonic()

    def part(self, name: str) -> PartialState:
        return PartialState(self.path.with_name(f"{self.path.stem}-{name}.ckpt"), every_seconds=self.every_seconds)

    def forget(self) -> None:
        """Delete what was kept, also by the parts: the results are on disk."""
        for path in [self.path, *self.path.parent.glob(f"{self.path.stem}-*.ckpt")]:
            path.unlink(missing_ok=True)
