"""The live checks of an evaluation: the systems themselves are asked, once, before their numbers are believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

# Enough to notice what differs between utterances, and cheap: the shortest of a batch.
_UTTERANCES = 3


class LiveChecks:
    """Checks every system under every condition on the same few utterances.

    The verdicts stay in the run folder, under the hashes of what was checked: an evaluation that goes on asks nothing twice, and
    one whose weights or settings are others asks again. Nothing that the rows depend on is touched.

    Args:
        hashes: "system" and "condition" -> name -> hash.
        seed: of the evaluation.
    """

    def __init__(self, run_dir: Path, hashes: Mapping[str, Mapping[str, str]], *, seed: int) -> None:
        self.run_dir, self.seed = run_dir, seed
        self._hashes = hashes
        self._known = read_live(run_dir)

    def check(
        self, systems: Iterable[tuple[str, Recognizer]], conditions: Mapping[str, Attack], batch: AudioBatch
    ) -> None:
        """Ask what is not known yet."""
        few = batch.select(batch.lengths.argsort(stable=True)[:_UTTERANCES])
        seeds = utterance_seeds(self.seed, few.ids)
        for system, recognizer in systems:
            pair = (self._hashes["system"][system], "")
            if pair not in self._known:
                self._keep(pair, check_recognizer(recognizer, few, seeds=seeds), system=system)
            for condition, attack in conditions.items():
                pair = (self._hashes["system"][system], self._hashes["condition"][condition])
                if pair not in self._known:
                    found = check_attack(recognizer, attack, few, seeds=seeds)
                    self._keep(pair, found, system=system, condition=condition)

    def _keep(self, pair: tuple[str, str], found: list[Check], *, system: str, condition: str = "") -> None:
        self._known[pair] = [replace(check, system=system, condition=condition) for check in found]
        write_live(self.run_dir, {pair: self._known[pair]})


def conclude(evaluation: Evaluation) -> str:
    """All checks of a finished evaluation into ``checks.json``. Returns a line for each that failed."""
    checks = check_evaluation(evaluation)
    write_checks(evaluation.run_dir, checks)
    return "\n".join(lines(checks, "fail"))
