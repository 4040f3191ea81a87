"""When one of two ranks ends, the other leaves soon, with a sentence and an exit code, whatever runs and however it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import ROOT, write_config
from tests.lightning_modules.test_resume import settings

RECOGNIZER = {"class_path": "robust_asr.models.compact.CompactCTC", "init_args": {"width": 16, "gru_width": 8}}
NOISE = {"class_path": "robust_asr.attacks.noise.Gaussian", "init_args": {"sigma": 0.01}}


def command(subcommand: str, manifests: Path, folder: Path, end: dict | None = None, *, ranks: int = 2) -> list[str]:
    """A run of which a rank may end at a batch."""
    config = settings(manifests, folder / "run", ranks, 0, [])
    config["trainer"]["callbacks"] = [{"class_path": "tests.callbacks.EndAt", "init_args": end}] if end else []
    if subcommand != "fit":
        for name in ("optimizer", "lr_scheduler", "checkpoint"):
            del config[name]
        del config["trainer"]["max_epochs"], config["trainer"]["log_every_n_steps"]
        config["data"]["init_args"] = {"manifests": str(manifests), subcommand: ["dev"], "max_duration": 2.0}
        arguments = (
            {"systems": {"one": RECOGNIZER}} if subcommand == "test" else {"recognizer": RECOGNIZER, "attack": NOISE}
        )
        name = "evaluation.Evaluation" if subcommand == "test" else "attack_set.AttackSet"
        config["model"] = {"class_path": f"lightning_modules.{name}", "init_args": arguments}
    path = write_config(folder / "c.yaml", config)
    return [sys.executable, str(ROOT / "train.py"), subcommand, "--config", str(path), "--allow_module", "tests"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


@pytest.mark.parametrize(
    ("subcommand", "rank", "how"),
    [
        ("fit", 0, "SIGKILL"),
        pytest.param("fit", 1, "SIGKILL", marks=pytest.mark.long),
        ("fit", 1, "ValueError"),
        pytest.param("test", 0, "SIGKILL", marks=pytest.mark.long),
        ("test", 1, "ValueError"),
        ("predict", 1, "SIGKILL"),
        pytest.param("predict", 0, "ValueError", marks=pytest.mark.long),
    ],
)
def test_the_other_rank_leaves_with_one_sentence(
    subcommand: str, rank: int, how: str, tiny_manifests: Path, tmp_path: Path
) -> None:
    # As under srun: the ranks are no children of each other.
    arguments = command(subcommand, tiny_manifests, tmp_path, {"batch": 1, "rank": rank, "how": how})
    port = str(20_000 + os.getpid() % 10_000)
    ranks = []
    for number in (0, 1):
        slurm = {
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NAME": "robust-asr",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_NODEID": "0",
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
            "MASTER_PORT": port,
        }
        ranks.append(
            subprocess.Popen(
                arguments,
                env=environment(**slurm),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = {}
    said[rank] = ranks[rank].communicate(timeout=240)[1]
    ended = time.monotonic()
    said[1 - rank] = ranks[1 - rank].communicate(timeout=240)[1]
    assert time.monotonic() - ended < 60
    assert ranks[1 - rank].returncode == 1, said
    assert ranks[rank].returncode == (-signal.SIGKILL if how == "SIGKILL" else 2), said
    for number, text in said.items():
        assert "Traceback" not in text
        sentences = [line for line in text.splitlines() if line.startswith("error: ")]
        died = number == rank and how == "SIGKILL"
        assert len(sentences) == (0 if died else 1), text
        if number != rank:
            assert f"rank {rank} " in sentences[0] and f"rank {number} leaves" in sentences[0]
        if how == "ValueError":
            assert "its audio is gone" in sentences[0]


@pytest.mark.parametrize(
    ("subcommand", "how", "ranks"), [("test", "SIGTERM", 2), ("predict", "SIGINT", 1), ("test", "SIGUSR1", 1)]
)
def test_a_signal_ends_an_evaluation_with_75_and_it_goes_on(
    subcommand: str, how: str, ranks: int, tiny_manifests: Path, tmp_path: Path
) -> None:
    def run(end: dict | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(subcommand, tiny_manifests, tmp_path, end, ranks=ranks),
            env=environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )

    first = run({"batch": 1, "rank": 0, "how": how})
    assert first.returncode == 75, first.stdout
    assert "Traceback" not in first.stdout
    (sentence,) = [line for line in first.stdout.splitlines() if line.startswith("stopped by ")]
    assert how in sentence and "the same command goes on" in sentence
    second = run(None)
    assert second.returncode == 0, second.stdout
    ids = [json.loads(line)["id"] for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 10
