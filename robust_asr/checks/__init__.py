"""Checks of an evaluation, whose verdicts stand in its report: does a number measure what its name says, and was the attack strong.

``check_rows`` asks the rows, ``check_system`` asks the system itself. A failure means that a number is not to be believed before
it is explained; "not run" names the condition that is missing.

Sources: Carlini et al. 2019 (On Evaluating Adversarial Robustness), Athalye et al. 2018, Tramer et al. 2020, Croce et al. 2022.
"""

from robust_asr.checks.live.system import check_attack, check_recognizer, check_system
from robust_asr.checks.rows import check_evaluation, check_rows
from robust_asr.checks.store import CHECKS, read_checks, read_live, write_checks, write_live
from robust_asr.checks.verdicts import Check, Question, condensed, lines

__all__ = [
    "CHECKS",
    "Check",
    "Question",
    "check_attack",
    "check_evaluation",
    "check_recognizer",
    "check_rows",
    "check_system",
    "condensed",
    "lines",
    "read_checks",
    "read_live",
    "write_checks",
    "write_live",
]
