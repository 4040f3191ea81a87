"""Contenders that take turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds_of(contenders: dict[str, Callable[[], None]], *, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of this process, so that waiting for other work does not count; they take turns, since what it does to the
    caches does. The first round is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, contender in contenders.items():
            start = time.process_time()
            contender()
            seconds[name].append(time.process_time() - start)
    return {name: rounds[1:] for name, rounds in seconds.items()}


def print_seconds(seconds: dict[str, list[float]]) -> None:
    """The median of each, and its smallest and largest round."""
    for name, rounds in seconds.items():
        print(f"{name:13} {statistics.median(rounds):7.3f} s [{min(rounds):.3f}, {max(rounds):.3f}]")


def median_ratio(seconds: dict[str, list[float]], top: str, bottom: str) -> float:
    """Of the rounds, in which both met the same machine."""
    return statistics.median(one / other for one, other in zip(seconds[top], seconds[bottom], strict=True))
