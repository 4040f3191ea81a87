"""Other ways to start: torchrun, and configs/slurm.sbatch under a scheduler that we play (signal, requeue, resume, whole curve)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT, final_state, train, write_config
from tests.lightning_modules.test_resume import KILL, assert_same_run, settings

# Two tasks on one machine, as SLURM would start them; a failure of one is the status of all, as with --kill-on-bad-exit.
SRUN = """#!/bin/bash
pids=()
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" &
    pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
    wait "$pid" || status=$?
done
exit $status
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$REQUEUED"
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def reference(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks started by Lightning itself."""
    folder = tmp_path_factory.mktemp("reference")
    config = write_config(folder / "c.yaml", settings(tiny_manifests, folder / "run", 2, 0, []))
    result = train("fit", "--config", config)
    assert result.returncode == 0, result.stdout
    return folder / "run"


def test_torchrun_makes_the_same_run(reference: Path, tiny_manifests: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", settings(tiny_manifests, tmp_path / "run", 2, 0, []))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    result = subprocess.run(
        [*launcher, str(ROOT / "train.py"), "fit", "--config", str(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout
    assert_same_run(tmp_path / "run", reference)


def test_preempted_job_is_requeued_and_goes_on_exactly(reference: Path, tiny_manifests: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    executable(tools / "srun", SRUN)
    executable(tools / "scontrol", SCONTROL)
    config = settings(tiny_manifests, tmp_path / "ignored", 2, 0, [])
    write_config(tmp_path / "c.yaml", config)

    # The scheduler's signal arrives in the middle of the second epoch, on one of the two tasks first.
    signalled = {"class_path": KILL, "init_args": {"epoch": 1, "batch": 1, "rank": 1, "signal_name": "SIGUSR1"}}
    first = {**config, "trainer": {**config["trainer"], "callbacks": [signalled]}}
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RUN_DIR": str(tmp_path / "run"),
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "robust-asr",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1",
    }

    def job(recipe: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(ROOT / "configs" / "slurm.sbatch"), str(recipe), "--allow_module", "tests"],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )

    launched = job(write_config(tmp_path / "first.yaml", first))
    assert launched.returncode == 0, launched.stdout
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
    assert final_state(tmp_path / "run")
    again = job(tmp_path / "c.yaml")
    assert again.returncode == 0, again.stdout
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
    assert_same_run(tmp_path / "run", reference)
