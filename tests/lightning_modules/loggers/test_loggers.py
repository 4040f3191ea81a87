"""The record of a run: bit for bit, and over kills and resumes equal to an uninterrupted run's."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.utilities import rank_zero_only

from lightning_modules.callbacks.rewind import RewindLoggers
from lightning_modules.loggers import RunCSVLogger, RunWandbLogger, read_metrics, wandb_run_id
from lightning_modules.loggers.metrics_file import MetricsFile
from lightning_modules.loggers.wandb_pieces import offline_pieces, recorded_values
from tests.wandb_files import records_of

ROOT = Path(__file__).resolve().parents[3]
NUM_STEPS = 15
FLUSHED = ["kill"]
KILLS = {
    "in_a_batch": [["on_before_zero_grad", 6]],
    "in_a_batch_of_the_second_epoch": [["on_before_zero_grad", 9]],
    "after_saving": [["on_train_batch_end", 8]],
    "in_validation": [["on_validation_batch_end", 10]],
    "after_the_epoch_was_saved": [["on_train_epoch_end", 10]],
    "at_an_epoch_start": [["on_train_epoch_start", 10]],
    "twice": [["on_before_zero_grad", 7], ["on_validation_batch_end", 10]],
}


def run_scenarios(folder: Path, scenarios: list[dict]) -> None:
    plan = folder / "scenarios.json"
    plan.write_text(json.dumps(scenarios))
    # Without the service of another run of this process: a killed run would stay "in use" there.
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment = inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    command = [sys.executable, str(Path(__file__).parents[1] / "killed_run.py"), str(plan)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert ended.returncode == 0, ended.stderr[-4000:] + ended.stdout[-2000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """An uninterrupted run, and one that was killed and resumed for each moment of KILLS."""
    folder = tmp_path_factory.mktemp("runs")
    whole = {"folder": str(folder / "whole"), "checkpoint": "last", "wandb": False, "phases": [{"kill": None}]}
    scenarios = [whole] + [
        {
            "folder": str(folder / name),
            "checkpoint": "lightning" if name == "after_saving" else "last",
            "phases": [{"kill": kill} for kill in kills] + [{"kill": None}],
        }
        for name, kills in KILLS.items()
    ]
    late = {"kill": ["on_before_zero_grad", 9], "pause": FLUSHED}
    middle = {"kill": ["on_train_batch_start", 13], "pause": [11]}
    scenarios.append(
        {"folder": str(folder / "flushed"), "checkpoint": "last", "phases": [late, middle, {"kill": None}]}
    )
    run_scenarios(folder, scenarios)
    return folder


def curve(path: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in read_metrics(path)]


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_values_read_back_bit_for_bit(values):
    with tempfile.TemporaryDirectory() as folder:
        record = MetricsFile(Path(folder) / "metrics.csv")
        for step, value in enumerate(values):
            record.update(step, {"loss": value})
        back = [row["loss"] for row in read_metrics(record.path)]
    assert [repr(float(value)) for value in back] == [repr(value) for value in values]


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.dictionaries(st.sampled_from("abcd"), st.integers(-9, 9) | st.floats(-1, 1))),
        max_size=12,
    ),
    st.integers(0, 7),
)
def test_the_file_is_a_table_of_what_was_logged_last(updates, rewind):
    """Against a dictionary of rows, with steps in any order, a reopened file in the middle, and a rewind."""
    expected: dict[int, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        record = MetricsFile(Path(folder) / "metrics.csv")
        for index, (step, values) in enumerate(updates):
            if index == len(updates) // 2:
                record = MetricsFile(record.path)
            record.update(step, values)
            expected.setdefault(step, {"step": step}).update(values)
        record.rewind(rewind)
        rows = read_metrics(record.path)
    assert rows == [expected[step] for step in sorted(expected) if step < rewind]


def test_rows_begin_with_step_and_epoch_and_one_step_is_one_row(tmp_path):
    logger = RunCSVLogger(str(tmp_path))
    logger.log_metrics({"lr": 0.5, "epoch": 0}, 3)
    logger.log_metrics({"train/loss": 0.1, "epoch": 0}, 3)
    logger.log_metrics({"val/wer": 0.25}, None)
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,lr,train/loss,val/wer\n3,0,0.5,0.1,0.25\n"


def test_a_torn_last_row_is_dropped_and_a_broken_row_is_named(tmp_path):
    record = MetricsFile(tmp_path / "metrics.csv")
    for step in range(3):
        record.update(step, {"epoch": 0, "loss": step / 7})
    whole = record.path.read_bytes()
    for cut in range(1, 8):
        record.path.write_bytes(whole[:-cut])
        assert [row["step"] for row in read_metrics(record.path)] == [0, 1]
        assert MetricsFile(record.path).last_step == 1
    record.path.write_bytes(whole.replace(b"\n1,", b"\none,"))
    with pytest.raises(ValueError, match=r"metrics.csv, line 3: expected 3 cells"):
        RunCSVLogger(str(tmp_path)).log_metrics({"loss": 1.0}, 4)


def test_text_is_data_and_not_a_formula(tmp_path):
    logger = RunCSVLogger(str(tmp_path))
    texts = ['=cmd|"/C calc"!A0', "+1", "-1", "@x", "'quoted", 'a,"b"', "two\nlines"]
    logger.log_metrics({f"={index}": text for index, text in enumerate(texts)}, 0)
    with logger.path.open(newline="") as file:
        header, row = csv.reader(file)
    assert not any(cell.startswith(tuple("=+-@")) for cell in header + row)
    assert [value for name, value in read_metrics(logger.path)[0].items() if name.startswith("=")] == [
        *texts[:-1],
        "two\ufffdlines",
    ]


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = RunCSVLogger(str(tmp_path / "run"))
    logger.log_metrics({"loss": 1.0}, 0)
    logger.rewind(0)
    logger.sync()
    wandb_run_id(tmp_path / "run")
    assert not (tmp_path / "run").exists()


WRITER = """
import sys
from lightning_modules.loggers.metrics_file import MetricsFile
record = MetricsFile(sys.argv[1])
for step in range(10**9):
    record.update(step, {"epoch": 0, "loss": 1 / (step + 1), f"late{step // 500}": step})
    record.update(step, {"wer": step / 3})
    sys.stdout.write(f"{step}\\n"); sys.stdout.flush()
"""


def rows_lost_at_a_kill(path: Path, seconds: float) -> int:
    """Rows whose writing was reported but that the file lacks, after a SIGKILL ``seconds`` after the first row."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        reported = 1 + process.stdout.read().count(b"\n")
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert all(row["loss"] == 1 / (row["step"] + 1) for row in rows)
    assert all("wer" in row for row in rows[:-1])
    assert MetricsFile(path).last_step == len(rows) - 1
    return max(reported - len(rows), 0)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2])
def test_no_reported_row_is_lost_at_a_kill(tmp_path, seconds):
    assert rows_lost_at_a_kill(tmp_path / "metrics.csv", seconds) == 0


@pytest.mark.long
@pytest.mark.parametrize("index", range(60))
def test_no_reported_row_is_lost_at_any_of_many_kills(tmp_path, index):
    assert rows_lost_at_a_kill(tmp_path / "metrics.csv", 0.4 * math.modf(index * 0.618)[0]) == 0


@pytest.mark.parametrize("name", [*KILLS, "flushed"])
def test_the_curve_of_a_killed_and_resumed_run_is_the_uninterrupted_one(runs, name):
    whole = curve(runs / "whole" / "metrics.csv")
    assert [row["step"] for row in whole] == list(range(NUM_STEPS))
    assert {"epoch", "train/loss", "lr-Adam"} <= whole[0].keys() and {"val/a/loss", "train/epoch_norm"} <= whole[
        4
    ].keys()
    assert curve(runs / name / "metrics.csv") == whole


def test_throughput_is_measured_apart(runs):
    names = {name for row in read_metrics(runs / "whole" / "metrics.csv") for name in row if name.startswith("time/")}
    assert names == {"time/audio_seconds_per_second", "time/data_wait_share"}


def history(folder: Path) -> list[list[dict]]:
    """The rows of each W&B piece, oldest first."""
    pieces: list[list[dict]] = []
    paths = offline_pieces(folder, wandb_run_id(folder))
    for path in paths:
        # The others were killed, early ones perhaps before they held anything.
        records = records_of(path, ended=path == paths[-1])
        ids = {record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}
        assert ids <= {wandb_run_id(folder)}
        rows = [record.history for record in records if record.WhichOneof("record_type") == "history"]
        pieces.append([{"/".join(i.nested_key): json.loads(i.value_json) for i in row.item} for row in rows])
    return pieces


@pytest.mark.parametrize("name", [*KILLS, "flushed"])
def test_the_wandb_pieces_have_one_id_and_a_step_axis_without_gap_or_repeat(runs, name):
    pieces = history(runs / name)
    assert len(pieces) == len(KILLS.get(name, [0, 0])) + 1
    rows = [row for piece in pieces for row in piece]
    assert [row["_step"] for row in rows] == list(range(NUM_STEPS))
    assert [row["trainer/global_step"] for row in rows] == list(range(NUM_STEPS))
    record = curve(runs / name / "metrics.csv")
    assert [
        {key: row[key] for key in expected if key != "step"} for row, expected in zip(rows, record, strict=True)
    ] == [{key: value for key, value in row.items() if key != "step"} for row in record]


def test_rows_that_reached_wandb_before_a_kill_are_not_sent_again(runs):
    """The kill came when rows up to step 8 were on disk, and the run went on at step 8."""
    first, second, third = ([row["_step"] for row in piece] for piece in history(runs / "flushed"))
    assert first == list(range(9))
    assert second[0] == 9 and second[-1] >= 10
    assert third == list(range(second[-1] + 1, NUM_STEPS))


def test_every_validation_reaches_wandb_as_a_table(runs):
    last = history(runs / "at_an_epoch_start")[-1][-1]
    assert last["samples/val0/_type"] == "table-file" and last["samples/val0/nrows"] == 2


def test_the_resolved_configuration_is_the_wandb_config(runs):
    path = offline_pieces(runs / "in_a_batch", wandb_run_id(runs / "in_a_batch"))[-1]
    records = records_of(path)
    updates = [update for record in records for update in record.config.update]
    assert {update.key: json.loads(update.value_json) for update in updates} == {
        "seed_everything": 7,
        "model": {"init_args": {"width": 3}},
    }


def test_wandb_collects_neither_paths_nor_the_host(runs):
    for path in offline_pieces(runs / "twice", wandb_run_id(runs / "twice")):
        content = path.read_bytes()
        assert recorded_values(path) is not None
        for secret in (str(runs), str(ROOT), "killed_run", sys.executable):
            assert secret.encode() not in content, secret
        # A text in these files stands behind its length.
        assert bytes([len(socket.gethostname())]) + socket.gethostname().encode() not in content
        names = {item.name for item in (path.parent / "files").rglob("*") if item.is_file()}
        assert not names & {"requirements.txt", "wandb-metadata.json", "output.log", "diff.patch"}


def test_a_piece_cut_anywhere_gives_a_prefix(runs, tmp_path):
    (path, *_) = offline_pieces(runs / "flushed", wandb_run_id(runs / "flushed"))
    content, cut = path.read_bytes(), tmp_path / "cut.wandb"
    for size in range(0, len(content), 97):
        cut.write_bytes(content[:size])
        steps = list(recorded_values(cut))
        assert steps == list(range(len(steps)))
    cut.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"cut.wandb is no \.wandb file"):
        recorded_values(cut)


class FakeRun:
    """What a server that took some rows of an online run answers."""

    def __init__(self, starting_step: int) -> None:
        self.starting_step = starting_step
        self.rows: list[tuple[int, dict]] = []
        self.finished: list[int] = []

    def log(self, values, *, step, commit):
        assert commit and (not self.rows or step > self.rows[-1][0])
        self.rows.append((step, values))

    def finish(self, exit_code):
        self.finished.append(exit_code)


@pytest.mark.parametrize("taken", [0, 5, 8, 11])
def test_an_online_run_goes_on_where_the_server_is(tmp_path, monkeypatch, taken):
    run = FakeRun(starting_step=taken)
    monkeypatch.setattr("lightning_modules.loggers.wandb_logger._start", lambda *args: run)
    record = RunCSVLogger(str(tmp_path))
    for step in range(12):
        record.log_metrics({"loss": step / 3}, step)
    logger = RunWandbLogger(mode="online", run_dir=str(tmp_path), run_id="abc")
    assert logger.version == "abc"
    for each in (record, logger):
        each.rewind(8)
    for step in range(8, 14):
        logger.complete_before(step)
        for name in ("lr", "loss"):
            logger.log_metrics({name: step / 3}, step)
    logger.finalize("success")
    assert [step for step, _ in run.rows] == list(range(taken, 14))
    assert all(values["loss"] == step / 3 and values["trainer/global_step"] == step for step, values in run.rows)
    assert run.finished == [0]


def test_a_row_that_a_failure_left_incomplete_is_not_sent(tmp_path, monkeypatch):
    run = FakeRun(0)
    monkeypatch.setattr("lightning_modules.loggers.wandb_logger._start", lambda *args: run)
    logger = RunWandbLogger(run_dir=str(tmp_path), run_id="abc")
    logger.experiment  # noqa: B018 - Lightning starts the run by looking at it
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
    logger.finalize("failed")
    assert [step for step, _ in run.rows] == [0, 1] and run.finished == [1]


def test_the_run_id_is_chosen_once(tmp_path):
    first = wandb_run_id(tmp_path)
    assert wandb_run_id(tmp_path) == wandb_run_id(tmp_path, from_checkpoint="other") == first
    assert wandb_run_id(tmp_path / "moved", from_checkpoint=first) == first
    assert (tmp_path / "moved" / "wandb_run_id.txt").read_text() == first + "\n"


@pytest.mark.parametrize("wrong", ["", "..", "../x", "a:b", "a" * 129, "a\nb", 7, None, ["a"]])
def test_no_file_names_another_kind_of_id(tmp_path, wrong):
    if isinstance(wrong, str):
        with pytest.raises(ValueError, match="W&B run id has 1 to 128"):
            wandb_run_id(tmp_path, from_checkpoint=wrong)
        assert not list(tmp_path.iterdir())
        (tmp_path / "wandb_run_id.txt").write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="W&B run id has 1 to 128"):
            wandb_run_id(tmp_path)
    elif wrong is not None:
        with pytest.raises(ValueError, match="W&B run id has 1 to 128"):
            RewindLoggers().load_state_dict({"next_step": 3, "wandb_run_id": wrong})


@pytest.mark.parametrize("wrong", [-1, "3", 2.5])
def test_a_checkpoint_names_a_step(wrong):
    with pytest.raises(ValueError, match="next_step must be a step"):
        RewindLoggers().load_state_dict({"next_step": wrong})


def test_the_checkpoint_carries_the_id_as_plain_text(runs):
    import torch

    states = torch.load(runs / "twice" / "last.ckpt", weights_only=True)["callbacks"]
    assert states["RewindLoggers"] == {"next_step": NUM_STEPS, "wandb_run_id": wandb_run_id(runs / "twice")}


def test_a_logger_without_a_run_folder_says_so():
    with pytest.raises(ValueError, match="RunCSVLogger has no run folder"):
        RunCSVLogger().log_metrics({"loss": 1.0}, 0)
    with pytest.raises(ValueError, match="RunWandbLogger has no run folder"):
        RunWandbLogger().experiment  # noqa: B018 - Lightning starts the run by looking at it


def test_views_without_the_record_are_rewound_to_nothing(tmp_path):
    """A callback list may hold other loggers: only those of a run are rewound."""
    epoch_loop = SimpleNamespace(_batches_that_stepped=0)
    trainer = SimpleNamespace(loggers=[SimpleNamespace()], fit_loop=SimpleNamespace(epoch_loop=epoch_loop))
    RewindLoggers().on_train_start(trainer, None)


def test_no_login_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**settings: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"trainer\.logger: W&B .*No API key configured.*wandb login.*mode: offline"):
        _ = RunWandbLogger(mode="online", run_dir=str(tmp_path), run_id="abc").experiment
