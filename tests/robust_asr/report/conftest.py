from __future__ import annotations

from pathlib import Path

import pytest

from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.runs import read_runs
from tests.robust_asr.report.example import CHECKS, write_example


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three systems, seven conditions, 40 utterances."""
    folder = tmp_path_factory.mktemp("example") / "run"
    return write_example(folder, num_utterances=40, keep_audio=1, max_seconds=1.0, checks=CHECKS)


@pytest.fixture(scope="session")
def example(run_dir: Path) -> Grid:
    return tabulate(read_runs([run_dir]))
