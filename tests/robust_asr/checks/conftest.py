from __future__ import annotations

import pytest

from robust_asr.results import Evaluation
from tests.listeners import five_words
from tests.robust_asr.checks.honest import evaluated, spoken
from tests.robust_asr.checks.table import CONDITIONS, smoothed


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    systems = {"plain": five_words(), "smoothed": smoothed()}
    return evaluated(tmp_path_factory.mktemp("honest"), systems, CONDITIONS, spoken(10, seed=1))
