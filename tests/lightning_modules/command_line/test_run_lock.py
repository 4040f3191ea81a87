"""Two jobs in one run folder: the second is refused while the first lives, and not a moment longer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lightning_modules.command_line import run_lock as module
from lightning_modules.command_line.cli import main
from lightning_modules.command_line.run_lock import LOCK, run_lock
from tests.command_line import ROOT, small_config, write_config

HOLD = """
import sys, time
from pathlib import Path
from lightning_modules.command_line.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that is in the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("subcommand", ["fit", "test", "predict"])
def test_second_job_is_refused_and_writes_nothing(
    subcommand: str, holder: subprocess.Popen, tiny_manifests: Path, tmp_path: Path, capsys
) -> None:
    path = write_config(tmp_path / "c.yaml", small_config(tiny_manifests, tmp_path / "run"))
    with pytest.raises(SystemExit) as stopped:
        main([subcommand, "--config", str(path)])
    assert stopped.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"another job (process {holder.pid} on {socket.gethostname()}) is in this folder" in sentence
    assert [file.name for file in (tmp_path / "run").iterdir()] == [LOCK]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_leaves_the_folder_free_at_once(
    by: signal.Signals, holder: subprocess.Popen, tmp_path: Path
) -> None:
    holder.send_signal(by)
    holder.wait()
    started = time.monotonic()
    with run_lock(tmp_path / "run"):
        assert time.monotonic() - started < 1.0


def test_nothing_stays_behind(tmp_path: Path) -> None:
    with run_lock(tmp_path / "runs" / "first"):
        pass
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("lives", [True, False])
def test_a_job_of_another_machine_lives_if_it_touches_its_file(
    locks: bool, lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that stays on the other machine, and a file system without any."""
    monkeypatch.setattr(module, "BEAT", 0.1)
    monkeypatch.setattr(module, "WATCH", 0.5)
    if not locks:
        monkeypatch.setattr(module, "_lock", lambda path, descriptor: False)
    path = tmp_path / LOCK
    path.write_text("elsewhere 123 0123456789abcdef\n")
    over = threading.Event()

    def touch() -> None:
        while lives and not over.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        if lives:
            with pytest.raises(ValueError, match="process 123 on elsewhere"), run_lock(tmp_path):
                pass
        else:
            with run_lock(tmp_path):
                assert socket.gethostname() in path.read_text()
    finally:
        over.set()
        thread.join()


def test_the_home_folder_is_written_as_a_tilde(
    tiny_manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "manifests").symlink_to(tiny_manifests)
    config = small_config(Path("~/manifests"), Path("~/run"), trainer__limit_train_batches=1, trainer__max_epochs=1)
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert str(tmp_path / "run") in (tmp_path / "run" / "config.yaml").read_text()
    assert not (ROOT / "~").exists()
