"""Our ROVER beside NIST's program as toolkits run it: files written, the program started, its result read.

``python -m benchmarks.rover [--nist PATH] [--inputs N]``. NIST's program is in Debian's package sctk. First both vote over random
transcripts, with and without times and confidences, and every difference counts; then they take turns at growing numbers.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.corpus import hardware
from robust_asr.defenses.rover import Rule, rover

# NIST's names of the rules.
_METHODS: dict[Rule, str] = {"average": "avgconf", "maximum": "maxconf"}
_WORDS = [f"w{number}" for number in range(200)]


@dataclass(frozen=True)
class Ballot:
    """What is voted over: start and end of each word, and options."""

    hypotheses: list[list[str]]
    times: list[list[tuple[float, float]]] | None = None
    confidences: list[list[float]] | None = None
    frequency_weight: float = 1.0
    rule: Rule = "average"
    null_confidence: float = 0.0

    def ours(self) -> list[str]:
        options = {"frequency_weight": self.frequency_weight, "rule": self.rule}
        return rover(
            self.hypotheses, self.times, self.confidences, null_confidence=self.null_confidence, min_gap=1.0, **options
        )

    def nist(self, program: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [program]
            for row in range(len(self.hypotheses)):
                path = Path(folder, f"{row}.ctm")
                path.write_text("".join(f"{line}\n" for line in self._lines(row)))
                arguments += ["-h", str(path), "ctm"]
            result = Path(folder, "result.ctm")
            options = f"-m {_METHODS[self.rule]} -a {self.frequency_weight} -c {self.null_confidence}".split()
            subprocess.run([*arguments, "-o", str(result), *options], check=True, capture_output=True)
            return [line.split()[4] for line in result.read_text().splitlines()]

    def _lines(self, row: int) -> list[str]:
        words = self.hypotheses[row]
        # Without times every word has the same span, which leaves no gap.
        times = self.times[row] if self.times else [(0.0, 1000.0)] * len(words)
        marks = [f" {value}" for value in self.confidences[row]] if self.confidences else [""] * len(words)
        return [
            f"u 1 {start} {end - start} {word}{mark}"
            for word, (start, end), mark in zip(words, times, marks, strict=True)
        ]


def ballot(chance: random.Random) -> Ballot:
    """Noisy copies of a few words; one in three with times, one in three with confidences."""
    base = [chance.choice("abcdef") for _ in range(chance.randint(2, 9))]
    hypotheses = [noisy(base, list("abcdef"), 0.35, chance) or ["a"] for _ in range(chance.randint(2, 8))]
    kind = chance.randrange(3)
    if kind == 1:
        return Ballot(hypotheses, times=[spans(len(words), chance) for words in hypotheses])
    if kind == 0:
        return Ballot(hypotheses)
    confidences = [[chance.choice([0.1, 0.25, 0.3, 0.5, 0.7, 1.0]) for _ in words] for words in hypotheses]
    weights = {
        "frequency_weight": chance.choice([0.0, 0.2, 0.5, 0.8]),
        "null_confidence": chance.choice([0.0, 0.3, 0.7]),
    }
    return Ballot(hypotheses, None, confidences, rule=chance.choice(list(_METHODS)), **weights)


def noisy(base: list[str], words: list[str], share: float, chance: random.Random) -> list[str]:
    """Words lost, exchanged and inserted, each with a third of the share."""
    found = []
    for word in base:
        fate = chance.random() / share
        if fate >= 1 / 3:
            found.append(chance.choice(words) if fate < 2 / 3 else word)
        if 2 / 3 <= fate < 1:
            found.append(chance.choice(words))
    return found


def spans(num: int, chance: random.Random) -> list[tuple[float, float]]:
    now, found = 0.0, []
    for _ in range(num):
        start = now + chance.choice([0.0, 1.0, 2.0, 4.0])
        now = start + chance.choice([0.0, 1.0, 3.0])
        found.append((start, now))
    return found


def milliseconds(vote: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Of the processor, in this process and in those that it started, so that other work does not count."""
    start = _used()
    result = vote()
    return 1000 * (_used() - start), result


def _used() -> float:
    """Seconds of the processor so far."""
    own, others = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nist", default="/usr/lib/sctk/bin/rover")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    chance = random.Random()
    ballots = [ballot(chance) for _ in range(options.inputs)]
    others = [given for given in ballots if given.ours() != given.nist(options.nist)]
    print(f"{hardware()}; {len(others)} of {len(ballots)} random inputs with another result")
    print("| transcripts | words | NIST, ms | ours, ms | ratio |\n|---|---|---|---|---|", flush=True)
    for num in (4, 8, 16, 48):
        for length in (16, 40):
            base = [chance.choice(_WORDS) for _ in range(length)]
            given = Ballot([noisy(base, _WORDS, 0.2, chance) for _ in range(num)])
            seconds: dict[str, list[float]] = {"nist": [], "ours": []}
            for _ in range(options.repeats):
                theirs, expected = milliseconds(lambda given=given: given.nist(options.nist))
                mine, found = milliseconds(given.ours)
                assert found == expected
                seconds["nist"].append(theirs)
                seconds["ours"].append(mine)
            theirs, mine = (median(seconds[name]) for name in ("nist", "ours"))
            print(f"| {num} | {length} | {theirs:.1f} | {mine:.1f} | {theirs / mine:.1f} |", flush=True)


if __name__ == "__main__":
    main()
