"""Work on many files by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
# Handing over every file alone costs a wait for the scheduler each time: on a busy machine more than the work.
_CHUNK = 32


def mapped(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_jobs: int, description: str
) -> Iterator[Result]:
    """The results in the order of the items, with a progress bar. Threads pay where the work releases the interpreter."""
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(num_jobs) as pool, tqdm(desc=description, total=len(items), unit="file") as progress:
        for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
            progress.update(len(results))
            yield from results
