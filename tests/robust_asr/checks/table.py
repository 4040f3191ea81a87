"""The table of the tests: its conditions, and how verdicts on it are read and its rows changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from robust_asr.attacks.base import Attack
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import Clean, Gaussian, MatchedNoise, Uniform
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.attacks.steps import Cosine
from robust_asr.checks import Check
from robust_asr.checks.verdicts import Question
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.results import Evaluation, Row
from robust_asr.threat import SNR, Linf
from tests.listeners import five_words

GOAL = Targeted(PhraseList(["YES NO", "GO STOP HELP", "HELP", "NO NO GO YES"]))
PLAIN = ("plain", "pgd7 .02")
FIRST = "tones-1-000"
CONDITIONS: dict[str, Attack] = {
    "clean": Clean(),
    "gaussian": Gaussian(sigma=0.01),
    "uniform 10 dB": Uniform(snr_db=10.0),
    "fgsm .02": FGSM(Linf(0.02)),
    "pgd7 .001": PaperPGD(Linf(0.001)),
    "pgd7 .02": PaperPGD(Linf(0.02)),
    "pgd20 .02": PaperPGD(Linf(0.02), num_iterations=20),
    "eot4 .02": PaperPGD(Linf(0.02), num_draws=4),
    "unaware .02": PaperPGD(Linf(0.02), knowledge="unaware"),
    "noise .001": MatchedNoise(Linf(0.001), distribution="signs"),
    "noise .02": MatchedNoise(Linf(0.02), distribution="signs"),
    "pgd 15 dB": PaperPGD(SNR(15.0), num_iterations=12, steps=Cosine()),
    "noise 15 dB": MatchedNoise(SNR(15.0)),
    "towards .02": PaperPGD(Linf(0.02), goal=GOAL),
    "far towards .02": PaperPGD(Linf(0.02), goal=GOAL, num_iterations=14),
}


def smoothed(sigma: float = 0.01) -> Defended:
    return Defended(GaussianNoise(sigma), five_words())


def verdicts(checks: Iterable[Check], question: Question) -> dict[str, set[tuple[str, str]]]:
    """Verdict -> the (system, condition) that have it."""
    found: dict[str, set[tuple[str, str]]] = {"fail": set(), "not run": set(), "pass": set()}
    for check in checks:
        if check.name == question.name:
            found[check.verdict].add((check.system, check.condition))
    return found


def edited(evaluation: Evaluation, where: Callable[[Row], bool], **changes: object) -> Evaluation:
    """With changes to some rows; a callable makes its value from the row."""
    rows = []
    for row in evaluation.rows:
        made = changes if where(row) else {}
        rows.append({**row, **{name: new(row) if callable(new) else new for name, new in made.items()}})
    return replace(evaluation, rows=tuple(rows))


def cell(system: str, condition: str) -> Callable[[Row], bool]:
    return lambda row: (row["system"], row["condition"]) == (system, condition)


def without_first(evaluation: Evaluation) -> Evaluation:
    """Without the first utterance of one cell."""
    rows = evaluation.rows
    return replace(evaluation, rows=tuple(row for row in rows if not (cell(*PLAIN)(row) and row["id"] == FIRST)))
