"""The live checks of an evaluation: run once for every system and condition before the first row is written."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from robust_asr.attacks.base import Attack
from robust_asr.checks import (
    Check,
    check_attack,
    check_evaluation,
    check_recognizer,
    lines,
    read_live,
    write_checks,
    write_live,
)
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results import Evaluation
from robust_asr.types import AudioBatch

# Three utterances are cheap and enough to notice faults that depend on the utterance; the shortest of a batch are taken.
_UTTERANCES = 3


class LiveChecks:
    """Checks every system under every condition on the same few utterances.

    The verdicts are saved in the run folder under the hashes of system and condition. A resumed evaluation does not repeat a
    check; with other weights or settings the hashes differ, and the check runs again. The checks change nothing that the rows
    depend on.

    Args:
        hashes: "system" and "condition" -> name -> hash.
        seed: the seed of the evaluation.
    """

    def __init__(self, run_dir: Path, hashes: Mapping[str, Mapping[str, str]], *, seed: int) -> None:
        self.run_dir, self.seed = run_dir, seed
        self._hashes = hashes
        self._known = read_live(run_dir)

    def check(
        self, systems: Iterable[tuple[str, Recognizer]], conditions: Mapping[str, Attack], batch: AudioBatch
    ) -> None:
        """Run the checks whose verdicts are not saved yet."""
        few = batch.select(batch.lengths.argsort(stable=True)[:_UTTERANCES])
        seeds = utterance_seeds(self.seed, few.ids)
        for system, recognizer in systems:
            pair = (self._hashes["system"][system], "")
            if pair not in self._known:
                self._keep(pair, check_recognizer(recognizer, few, seeds=seeds), system=system)
            asked: dict[Hashable, list[Check]] = {}
            for condition, attack in conditions.items():
                pair = (self._hashes["system"][system], self._hashes["condition"][condition])
                if pair not in self._known:
                    checks = check_attack(recognizer, attack, few, seeds=seeds, asked=asked)
                    self._keep(pair, checks, system=system, condition=condition)

    def _keep(self, pair: tuple[str, str], checks: list[Check], *, system: str, condition: str = "") -> None:
        self._known[pair] = [replace(check, system=system, condition=condition) for check in checks]
        write_live(self.run_dir, {pair: self._known[pair]})


def conclude(evaluation: Evaluation) -> list[str]:
    """Write all checks of a finished evaluation to ``checks.json``. Returns one line for each failed check."""
    checks = check_evaluation(evaluation)
    write_checks(evaluation.run_dir, checks)
    return lines(checks, "fail")
