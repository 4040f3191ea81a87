"""A run that stopped in the middle of an epoch and goes on with other batches: no utterance is lost, and none comes twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from lightning_modules.command_line.cli import main
from tests.command_line import small_config, write_config

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}


def stopping(batch: int) -> dict:
    return {"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": 0, "batch": batch, "signal_name": "SIGUSR1"}}


def run(folder: Path, config: dict, *arguments: object, stop: int | None = None) -> Counter:
    """How often each utterance was trained on."""
    record = {"class_path": "tests.callbacks.RecordBatches", "init_args": {"path": str(folder / "seen")}}
    (folder / "seen.0").unlink(missing_ok=True)
    callbacks = [record] if stop is None else [record, stopping(stop)]
    config = {**config, "trainer": {**config["trainer"], "callbacks": callbacks}}
    command = [
        "fit",
        "--config",
        str(write_config(folder / "c.yaml", config)),
        "--allow_module",
        "tests",
        *map(str, arguments),
    ]
    if stop is None:
        main(command)
    else:
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 75
    lines = (folder / "seen.0").read_text().splitlines()
    return Counter(" ".join(line.split(" ", 2)[2] for line in lines).split())


@pytest.fixture
def config(tiny_manifests: Path, tmp_path: Path) -> dict:
    settings = small_config(tiny_manifests, tmp_path / "run", trainer__max_epochs=1)
    settings["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    settings["data"]["init_args"]["max_duration"] = 4.0
    return settings


def test_every_utterance_comes_once_however_often_the_batches_change(config: dict, tmp_path: Path, capsys) -> None:
    seen = run(tmp_path, config, stop=3)
    config["data"]["init_args"]["max_duration"] = 3.0
    seen += run(tmp_path, config, "--ckpt_path", "last", stop=6)
    # Unchanged: exactly the batches that were left.
    seen += run(tmp_path, config, "--ckpt_path", "last", stop=8)
    config["data"]["init_args"] |= {"max_duration": 9.0, "num_buckets": 3}
    seen += run(tmp_path, config, "--ckpt_path", "last")
    assert len(seen) == 40 and set(seen.values()) == {1}
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(len(rows) - 1)]


def test_a_changed_corpus_is_refused_or_the_epoch_begins_anew(
    config: dict, tiny_manifests: Path, tmp_path: Path, capsys
) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(tiny_manifests, manifests)
    config["data"]["init_args"]["manifests"] = str(manifests)
    run(tmp_path, config, stop=3)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    config["data"]["init_args"]["min_seconds"] = 1.0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, config, "--ckpt_path", "last")
    assert stopped.value.code == 2
    assert "the training utterances have changed" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before

    seen = run(tmp_path, config, "--ckpt_path", "last", "--resume_epoch", "restart")
    whole = run(tmp_path, config, "--run_dir", tmp_path / "other")
    assert seen == whole
    assert "epoch 0 begins anew: 4 batches of it were done" in capsys.readouterr().out
