"""Every check of a run folder: those of its rows, and the live verdicts that lie beside the rows."""

from __future__ import annotations

from robust_asr.checks.rows.attackers import check_attackers
from robust_asr.checks.rows.budgets import check_budgets
from robust_asr.checks.rows.controls import check_controls
from robust_asr.checks.rows.ensembles import check_ensembles
from robust_asr.checks.rows.gradients import check_gradients
from robust_asr.checks.rows.optimizers import check_optimizers
from robust_asr.checks.rows.records import check_records
from robust_asr.checks.rows.saved_audio import check_saved_audio
from robust_asr.checks.rows.transcripts import check_transcripts
from robust_asr.checks.store import read_live
from robust_asr.checks.verdicts import Check
from robust_asr.results import Evaluation

_CHECKS = (
    check_records,
    check_transcripts,
    check_budgets,
    check_saved_audio,
    check_gradients,
    check_optimizers,
    check_controls,
    check_ensembles,
    check_attackers,
)


def check_evaluation(evaluation: Evaluation) -> list[Check]:
    """The live verdicts that the run folder keeps on its systems and conditions, then those of ``check_rows``."""
    live = read_live(evaluation.run_dir, evaluation)
    return [*(check for verdicts in live.values() for check in verdicts), *check_rows(evaluation)]


def check_rows(evaluation: Evaluation) -> list[Check]:
    """A verdict for every cell, and for every pair of cells that can be compared; no row at all is no verdict.

    Comparisons of means are paired, on utterances that both sides have, with an interval over them.
    """
    return [check for checks in _CHECKS for check in checks(evaluation)] if evaluation.rows else []
