"""An evaluation on W&B, offline: what its file holds is what the rows say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_modules.loggers import RunWandbLogger
from lightning_modules.loggers.wandb_pieces import offline_pieces
from lightning_modules.loggers.wandb_report import log_report
from robust_asr.results import read_evaluation
from robust_asr.results.summary import COLUMNS, summarize
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example
from tests.wandb_files import records_of

HOSTILE = "<script>\u202e\x1b[31m"
CHOSEN = {name: CONDITIONS[name] for name in ("clean", "pgd7-0.01")} | {
    "cw": {"attack": "CW", "norm": "", "strength": "unbounded", "strength_unit": "", "knowledge": "exact"}
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("wandb")
    systems = {"baseline": SYSTEMS["baseline"], HOSTILE: SYSTEMS["RS 0.01"]}
    evaluation = read_evaluation(
        write_example(folder / "run", systems=systems, conditions=CHOSEN, num_utterances=6, keep_audio=1)
    )
    logger = RunWandbLogger(run_dir=str(folder), run_id="abc")
    log_report(logger.experiment, evaluation, num_worst=2)
    logger.finalize("success")
    return SimpleNamespace(folder=folder, evaluation=evaluation)


def records(folder: Path, kind: str) -> list:
    (path,) = offline_pieces(folder, "abc")
    return [getattr(record, kind) for record in records_of(path) if record.WhichOneof("record_type") == kind]


def table(folder: Path, name: str) -> dict:
    (path,) = folder.glob(f"*wandb/offline-run-*/files/media/table/evaluation/{name}_*.table.json")
    return json.loads(path.read_text())


def test_the_summary_table_is_the_summary(logged):
    content = table(logged.folder, "summary")
    lines = summarize(logged.evaluation)
    assert content["columns"] == COLUMNS and len(content["data"]) == len(lines) > 40
    for row, line in zip(content["data"], lines, strict=True):
        assert row[COLUMNS.index("value")] == pytest.approx(line["value"])
        assert row[COLUMNS.index("strength")] == str(line["strength"])


def test_differences_have_a_row_a_condition(logged):
    content = table(logged.folder, "differences")
    assert [row[0] for row in content["data"]] == list(CHOSEN)
    assert all(low <= value <= high for *_, value, _, _, low, high in content["data"])


def test_each_rate_is_a_value_of_the_run(logged):
    values = {}
    for summary in records(logged.folder, "summary"):
        values |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in summary.update}
    rates = {
        (line["condition"], line["system"]): line["value"]
        for line in summarize(logged.evaluation)
        if line["metric"] in ("WER", "GT_WER")
    }
    assert len(rates) == 6
    for (condition, system), value in rates.items():
        shown = system.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd")
        assert values[f"wer/test-clean/{condition}/{shown}"] == pytest.approx(value)


def test_the_worst_utterances_can_be_heard(logged):
    content = table(logged.folder, "worst")
    place = content["columns"].index
    cells = {}
    for row in content["data"]:
        cells.setdefault((row[place("system")], row[place("condition")]), []).append(row)
    attacked = cells["baseline", "pgd7-0.01"]
    assert len(attacked) == 2 and attacked[0][place("wer")] >= attacked[1][place("wer")]
    assert attacked[0][place("alignment")].startswith("REF:")
    # Audio was kept of one utterance of each of six cells; its clean form may be another cell's too.
    items = records(logged.folder, "history")[-1].item
    values = {"/".join(item.nested_key): json.loads(item.value_json) for item in items}
    for name in ("evaluation/audio/clean", "evaluation/audio/attacked"):
        audio = values[f"{name}/audio"]
        assert f"{attacked[0][place('number')]}: baseline, pgd7-0.01, " in "\n".join(clip["caption"] for clip in audio)
        assert len(audio) == 6 or (len(audio) > 6 and name.endswith("clean"))
        assert all(list(logged.folder.glob(f"*wandb/*/files/{clip['path']}")) for clip in audio)


def test_no_control_character_reaches_the_dashboard(logged):
    text = json.dumps([table(logged.folder, name) for name in ("summary", "differences", "worst")], ensure_ascii=False)
    assert "<script>" in text and "\u202e" not in text and "\\u001b" not in text


def test_a_negative_number_of_utterances_is_refused(logged):
    with pytest.raises(ValueError, match="num_worst must be 0 or more, found -1"):
        log_report(None, logged.evaluation, num_worst=-1)
