"""A process is killed while it saves, again and again: the checkpoint is the old one or the new one, and never half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robust_asr.storage import sealed
from robust_asr.storage.files import clean_leftovers
from tests.command_line import ROOT

# Imports torch once and forks a writer for every line it reads: a kill then costs milliseconds.
WRITER = """
import itertools, os, sys, torch
from robust_asr.storage import sealed
torch.set_num_threads(1)
for target in map(str.strip, sys.stdin):
    pid = os.fork()
    if pid == 0:
        for step in itertools.count(1):
            sealed.write({"global_step": step, "state_dict": {"x": torch.full((500_000,), float(step))}}, target)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.fixture(params=["memory", "disk"])
def folders(request, tmp_path) -> Iterator[tuple[Path, Path]]:
    """The target's folder and the temporary folder, which lie on different file systems."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        yield (Path(other), tmp_path) if request.param == "memory" else (tmp_path, Path(other))


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.long)])
def test_killed_while_saving(folders, kills):
    folder, temporary = folders
    target, chance, made, interrupted = folder / "last.ckpt", random.Random(kills), 0, 0
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as writer:
        # On a busy machine many kills fall between two writes: those prove nothing, and more are made.
        while (made < kills or interrupted < kills // 3) and made < 20 * kills:
            made += 1
            print(target, file=writer.stdin, flush=True)
            pid = int(writer.stdout.readline())
            while not target.exists():
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            assert writer.stdout.readline() == "gone\n"
            content = sealed.read(target)
            assert torch.equal(content["state_dict"]["x"], torch.full((500_000,), float(content["global_step"])))
            interrupted += len(clean_leftovers(folder))
            assert os.listdir(folder) == ["last.ckpt"]
            assert os.listdir(temporary) == []
        writer.stdin.close()
    assert interrupted >= kills // 3
