"""A disk that is full ends an evaluation with a sentence and no half row, and the evaluation goes on when there is room."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

from tests.command_line import ROOT
from tests.lightning_modules.test_dying_ranks import command, environment

# Bytes of a file: enough for the description, not for all rows.
ROOM = 4000


def test_an_evaluation_on_a_full_disk(tiny_manifests: Path, tmp_path: Path) -> None:
    def run(room: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command("test", tiny_manifests, tmp_path, ranks=1), "--model.init_args.keep_audio", "0"],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
        )

    rows = tmp_path / "run" / "results.jsonl"
    full = run(ROOM)
    assert full.returncode == 2, full.stderr
    assert full.stderr.splitlines()[-1] == f"error: {rows}: File too large"
    assert "Traceback" not in full.stderr
    assert rows.read_bytes().endswith(b"\n")
    done = rows.read_text().splitlines()
    assert 0 < len(done) < 10
    again = run(resource.RLIM_INFINITY)
    assert again.returncode == 0, again.stderr
    assert len(rows.read_text().splitlines()) == 10
    assert {json.loads(line)["id"]: json.loads(line)["seconds"] for line in done}.items() <= {
        json.loads(line)["id"]: json.loads(line)["seconds"] for line in rows.read_text().splitlines()
    }.items(), "no row is made twice"
