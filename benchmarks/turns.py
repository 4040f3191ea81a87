"""Timing of contenders that take turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds_of(contenders: dict[str, Callable[[], None]], *, repeats: int) -> dict[str, list[float]]:
    """The CPU seconds of each contender in each round; the first round is left out.

    CPU seconds do not count the time in which this process waits for other work. Other work still slows this process down through
    the shared caches, and taking turns spreads that over all contenders.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, contender in contenders.items():
            start = time.process_time()
            contender()
            seconds[name].append(time.process_time() - start)
    return {name: rounds[1:] for name, rounds in seconds.items()}


def print_seconds(seconds: dict[str, list[float]]) -> None:
    """Print the median of each contender, with its fastest and slowest round."""
    for name, rounds in seconds.items():
        print(f"{name:13} {statistics.median(rounds):7.3f} s [{min(rounds):.3f}, {max(rounds):.3f}]")


def median_ratio(seconds: dict[str, list[float]], top: str, bottom: str) -> float:
    """The median over the rounds of the ratio of two contenders; in one round both run under the same load."""
    return statistics.median(one / other for one, other in zip(seconds[top], seconds[bottom], strict=True))
