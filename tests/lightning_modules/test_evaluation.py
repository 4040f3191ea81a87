"""Rows: the same on one and two ranks and after kills, never of another model, with the numbers counted by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from lightning_modules.command_line.cli import main
from lightning_modules.loggers.wandb_pieces import offline_pieces, recorded_values
from robust_asr import checkpoint
from robust_asr.attacks.base import Attack
from robust_asr.metrics import word_errors
from robust_asr.models.compact import CompactCTC
from robust_asr.results import read_evaluation
from tests.command_line import train, write_config

SMALL = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
GLOO = {
    "devices": 2,
    "strategy": {
        "class_path": "pytorch_lightning.strategies.DDPStrategy",
        "init_args": {"process_group_backend": "gloo"},
    },
}
NOISE = "robust_asr.attacks.noise"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two recognisers that say something else about everything: nothing here needs them to be right."""
    folder = tmp_path_factory.mktemp("systems")
    paths = {}
    for seed, name in enumerate(("first", "second .01")):
        torch.manual_seed(seed)
        paths[name] = str(folder / f"{seed}.ckpt")
        checkpoint.save(CompactCTC(**SMALL), paths[name])
    return paths


@pytest.fixture
def config(tiny_manifests: Path, checkpoints: dict[str, str], tmp_path: Path) -> dict:
    load = "robust_asr.checkpoint.load"
    return {
        "run_dir": str(tmp_path / "run"),
        "model": {
            "class_path": "lightning_modules.evaluation.Evaluation",
            "init_args": {
                "systems": {
                    name: {"class_path": load, "init_args": {"path": path}} for name, path in checkpoints.items()
                },
                "conditions": {
                    "none": {"class_path": f"{NOISE}.Clean"},
                    "gaussian .01": {"class_path": f"{NOISE}.Gaussian", "init_args": {"sigma": 0.01}},
                    "uniform 10 dB": {"class_path": f"{NOISE}.Uniform", "init_args": {"snr_db": 10.0}},
                },
            },
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {"manifests": str(tiny_manifests), "test": ["dev"], "max_duration": 5.0},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }


@pytest.fixture
def evaluate(config: dict, tmp_path: Path):
    def run(**trainer: object) -> Path:
        changed = {**config, "trainer": {**config["trainer"], **trainer}}
        main(["test", "--config", str(write_config(tmp_path / "c.yaml", changed)), "--allow_module", "tests"])
        return Path(config["run_dir"])

    return run


def rows_of(run_dir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_every_cell_has_every_utterance_and_its_counts(evaluate, config: dict) -> None:
    rows = rows_of(evaluate())
    assert len(rows) == 2 * 3 * 10
    assert len({(row["system"], row["condition"], row["id"]) for row in rows}) == 60
    for row in rows:
        edits = row["insertions"] + row["deletions"] + row["substitutions"]
        assert (edits, row["words"]) == word_errors(row["reference"], row["hypothesis"])
    assert all(row["snr_db"] is None for row in rows if row["condition"] == "none")
    assert all(row["snr_db"] == pytest.approx(10, abs=0.01) for row in rows if row["condition"] == "uniform 10 dB")


def test_rows_of_other_code_are_kept_with_a_warning(evaluate, config: dict) -> None:
    run_dir = evaluate()
    path = run_dir / "evaluation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"code": ["older"]}))
    with pytest.warns(UserWarning, match="some of its rows were made by another version of robust_asr"):
        evaluate()
    assert json.loads(path.read_text())["code"] == ["older", *content["code"]] and len(rows_of(run_dir)) == 60


def test_summary_has_the_papers_columns(evaluate) -> None:
    with (evaluate() / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:13] == list(
        "system model defense sigma attack norm strength strength_unit eval_set metric value unit note".split()
    )
    cells = [line for line in lines if line["metric"] == "WER"]
    assert len(cells) == 6 and all(line["n"] == "10" and line["model"] == "CompactCTC" for line in cells)
    assert {line["strength"] for line in cells} == {"", "0.01", "10.0"}


def test_both_systems_meet_the_same_noise(evaluate) -> None:
    evaluation = read_evaluation(evaluate())
    first, second = (evaluation.select(name, "gaussian .01", "dev") for name in evaluation.systems)
    assert [row["snr_db"] for row in first] == [row["snr_db"] for row in second]
    assert [row["size"] for row in first] == [row["size"] for row in second]


def test_two_ranks_write_the_same_rows_and_audio(evaluate, config: dict, tmp_path: Path) -> None:
    """Defect 18 of other systems: ranks that finish at different times hang."""
    alone = evaluate()
    two = {**config, "run_dir": str(tmp_path / "two"), "trainer": {**config["trainer"], **GLOO}}
    result = train("test", "--config", write_config(tmp_path / "two.yaml", two))
    assert result.returncode == 0, result.stdout
    assert rows_of(tmp_path / "two") == rows_of(alone)
    assert not list((tmp_path / "two").glob("*rank*"))
    kept, expected = (
        {path.name: path.read_bytes() for path in (run / "audio").iterdir()} for run in (tmp_path / "two", alone)
    )
    assert kept == expected and len(expected) > 3


@pytest.mark.parametrize(("ranks", "after"), [(1, 0), (1, 7), (2, 4)])
def test_a_kill_leaves_no_gap_and_no_duplicate(evaluate, config: dict, tmp_path: Path, ranks: int, after: int) -> None:
    expected = rows_of(evaluate())
    killer = {"class_path": "tests.callbacks.KillInEvaluation", "init_args": {"after": after, "rank": ranks - 1}}
    again = {**config, "run_dir": str(tmp_path / "killed")}
    again["trainer"] = {**config["trainer"], **(GLOO if ranks > 1 else {}), "callbacks": [killer]}
    result = train("test", "--config", write_config(tmp_path / "k.yaml", again))
    assert result.returncode != 0
    again["trainer"] = dict(config["trainer"])
    result = train("test", "--config", write_config(tmp_path / "k.yaml", again))
    assert result.returncode == 0, result.stdout
    assert rows_of(tmp_path / "killed") == expected


def test_a_line_that_a_kill_cut_is_made_again(evaluate) -> None:
    run = evaluate()
    expected = rows_of(run)
    content = (run / "results.jsonl").read_bytes()
    (run / "results.jsonl").write_bytes(content[: len(content) // 2])
    assert rows_of(evaluate()) == expected


def test_nothing_is_done_twice(evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluate()
    before = (run / "results.jsonl").read_bytes()
    monkeypatch.setattr(CompactCTC, "transcribe", lambda *_, **__: pytest.fail("was heard again"))
    evaluate()
    assert (run / "results.jsonl").read_bytes() == before


def refused(capsys: pytest.CaptureFixture[str], evaluate) -> str:
    with pytest.raises(SystemExit):
        evaluate()
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_rows_of_another_model_are_refused(evaluate, config: dict, checkpoints, capsys) -> None:
    run = evaluate()
    before = (run / "results.jsonl").read_bytes()
    config["model"]["init_args"]["systems"]["first"]["init_args"]["path"] = checkpoints["second .01"]
    assert "another system 'first'" in refused(capsys, evaluate)
    assert (run / "results.jsonl").read_bytes() == before


def test_rows_of_another_condition_or_seed_are_refused(evaluate, config: dict, capsys) -> None:
    evaluate()
    config["seed_everything"] = 1
    assert "another condition" in refused(capsys, evaluate)
    config["seed_everything"] = 0
    config["model"]["init_args"]["conditions"]["gaussian .01"]["init_args"]["sigma"] = 0.02
    assert "another condition 'gaussian .01'" in refused(capsys, evaluate)


def test_a_row_of_another_recording_is_refused(evaluate, capsys) -> None:
    run = evaluate()
    lines = (run / "results.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["hashes"]["data"] = "0" * 16
    (run / "results.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    assert f"another data {row['id']!r}" in refused(capsys, evaluate)


def test_another_condition_joins_what_is_there(evaluate, config: dict) -> None:
    before = rows_of(evaluate())
    config["model"]["init_args"]["conditions"] = {
        "none": {"class_path": f"{NOISE}.Clean"},
        "gaussian 5 dB": {"class_path": f"{NOISE}.Gaussian", "init_args": {"snr_db": 5.0}},
    }
    rows = rows_of(evaluate())
    assert len(rows) == 80 and all(row in rows for row in before)


def test_the_same_numbers_are_on_the_dashboard(config: dict, tmp_path: Path) -> None:
    config["trainer"]["logger"] = {
        "class_path": "lightning_modules.loggers.wandb_logger.RunWandbLogger",
        "init_args": {},
    }
    # In a process of its own: W&B's service would be inherited by every process that a later test starts, and kills.
    result = train("test", "--config", write_config(tmp_path / "c.yaml", config))
    assert result.returncode == 0, result.stdout
    run = Path(config["run_dir"])
    (piece,) = offline_pieces(run, (run / "wandb_run_id.txt").read_text().strip())
    recorded = set().union(*recorded_values(piece).values())
    assert {"evaluation/summary", "evaluation/differences", "evaluation/worst"} <= recorded


def test_systems_of_different_rates_are_refused() -> None:
    from lightning_modules.evaluation import Evaluation

    other = CompactCTC(**SMALL)
    other.sample_rate = 8_000
    with pytest.raises(ValueError, match="one sample rate"):
        Evaluation({"a": CompactCTC(**SMALL), "b": other})


def test_a_part_of_a_hundred(config: dict, evaluate, capsys) -> None:
    config["data"]["init_args"]["eval_subset"] = "sorted100"
    assert "needs 100 utterances" in refused(capsys, evaluate)


@pytest.mark.long
@pytest.mark.parametrize("kill", range(30))
def test_thirty_kills(evaluate, config: dict, tmp_path: Path, kill: int) -> None:
    """Every point of a run of sixty calls, by two, on one rank and on two."""
    test_a_kill_leaves_no_gap_and_no_duplicate(evaluate, config, tmp_path, 1 + kill % 2, kill // (1 + kill % 2))


PGD = {
    "class_path": "robust_asr.attacks.pgd.PaperPGD",
    "init_args": {
        "threat": {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 0.01}},
        "num_iterations": 3,
        "knowledge": "unaware",
    },
}


def defended(recognizer: dict, sigma: float) -> dict:
    noise = {"class_path": "robust_asr.defenses.noise.GaussianNoise", "init_args": {"sigma": sigma}}
    init_args = {"defense": noise, "recognizer": recognizer}
    return {"class_path": "robust_asr.defenses.base.Defended", "init_args": init_args}


def test_systems_of_one_gradient_source_share_the_attack(config: dict, tmp_path: Path, monkeypatch) -> None:
    """Whoever is unaware of two defences attacks both with the same audio; the rows are those of each evaluated alone."""
    first, second = config["model"]["init_args"]["systems"].values()
    systems = {"a": first, "a + little": defended(first, 0.01), "a + much": defended(first, 0.05), "b": second}
    conditions = {"PGD": PGD}
    generated = []
    original = Attack.generate

    def counted(self, recognizer, *arguments, **keywords):
        generated.append(recognizer)
        return original(self, recognizer, *arguments, **keywords)

    monkeypatch.setattr(Attack, "generate", counted)

    def rows(name: str, systems: dict) -> dict[tuple[str, str], dict]:
        changed = {**config, "run_dir": str(tmp_path / name)}
        changed["model"] = {**config["model"], "init_args": {"systems": systems, "conditions": conditions}}
        main(["test", "--config", str(write_config(tmp_path / f"{name}.yaml", changed))])
        return {(row["system"], row["id"]): row for row in rows_of(tmp_path / name)}

    together = rows("together", systems)
    with_checks, generated[:] = len(generated), []
    apart = {key: row for name, system in systems.items() for key, row in rows(f"{name} alone", {name: system}).items()}
    # Alone, each of four systems is attacked; together, two of them are spared it. The live checks attack every system once.
    attacks = len(generated) - 4
    assert attacks > 0 and attacks % 4 == 0 and with_checks - 4 == attacks // 2
    cost = {"forwards", "paid_by"}
    for key, row in together.items():
        same = {name: value for name, value in row.items() if name not in cost}
        assert same == {name: value for name, value in apart[key].items() if name not in cost}
        shares = key[0] in ("a + little", "a + much")
        assert (row["forwards"], row.get("paid_by")) == ((0, "a") if shares else (3, None))
        assert row["iterations"] == 3


def test_what_an_attacker_cannot_be_shown_is_said_before_the_first_batch(config: dict, tmp_path: Path) -> None:
    halved = {"class_path": "tests.robust_asr.defenses.parts.Halved"}
    recognizer = next(iter(config["model"]["init_args"]["systems"].values()))
    system = {
        "class_path": "robust_asr.defenses.base.Defended",
        "init_args": {"defense": halved, "recognizer": recognizer},
    }
    attack = {**PGD, "init_args": {**PGD["init_args"], "knowledge": "straight_through"}}
    config["model"]["init_args"] = {"systems": {"halved": system}, "conditions": {"PGD": attack}}
    with pytest.raises(SystemExit):
        main(["test", "--config", str(write_config(tmp_path / "c.yaml", config)), "--allow_module", "tests"])
    assert not (Path(config["run_dir"]) / "results.jsonl").exists()


def test_an_attack_killed_in_a_batch_goes_on_with_its_state(config: dict, tmp_path: Path) -> None:
    """The partial state of the batch that was under way lies beside the rows, and is gone when they are written."""
    settings = {**PGD["init_args"], "num_iterations": 40, "lives": str(tmp_path / "lives")}
    attack = {"class_path": "tests.dying_attack.DyingPGD", "init_args": settings}
    config["model"]["init_args"] |= {"conditions": {"PGD": attack}, "keep_every_seconds": 0.0}
    run_dir = Path(config["run_dir"])
    paths = [write_config(tmp_path / "c.yaml", config)]
    first = train("test", "--config", paths[0], "--allow_module", "tests")
    assert first.returncode != 0 and list((run_dir / "partial").glob("*.ckpt"))
    second = train("test", "--config", paths[0], "--allow_module", "tests")
    assert second.returncode == 0, second.stdout
    assert not list((run_dir / "partial").glob("*.ckpt"))
    begun = [int(line.split()[1]) for line in (tmp_path / "lives").read_text().splitlines()]
    assert begun == [0, 10], "the second process goes on after the last state of the first"
