"""Work on many files by threads, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
# Files are handed over in chunks: on a busy machine a thread waits longer for its turn than it works on one file.
_CHUNK = 32
# Seconds between two lines of a bar that nobody watches.
_SECONDS_IN_A_FILE = 30.0


def progress_bar(description: str, *, total: int, unit: str) -> tqdm:
    """A bar over the whole of a task, with the time that is left of it. In a file it prints a line every half a minute."""
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {unit} [{elapsed}, {remaining} left]",
        mininterval=0.1 if sys.stderr.isatty() else _SECONDS_IN_A_FILE,
        dynamic_ncols=True,
    )


def mapped(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_jobs: int, progress: tqdm
) -> Iterator[Result]:
    """The results in the order of the items, each counted in ``progress``. Threads pay where the work releases the interpreter."""
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(num_jobs) as pool:
        for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
            progress.update(len(results))
            yield from results
