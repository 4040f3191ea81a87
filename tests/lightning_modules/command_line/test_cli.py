"""The command line: what it writes, and one clear sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import soundfile
import yaml

from datamodules import prepare
from lightning_modules.command_line.cli import RobustCLI, main
from lightning_modules.command_line.config_guard import guarded_imports
from robust_asr.checkpoint import load
from robust_asr.storage import trust
from tests.command_line import small_config, write_config
from tests.corpus import write_corpus

TINY = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}


@pytest.fixture
def config(tiny_manifests: Path, tmp_path: Path) -> dict:
    settings = small_config(tiny_manifests, tmp_path / "run", trainer__max_epochs=1)
    settings["model"]["init_args"]["recognizer"]["init_args"] = dict(TINY)
    return settings


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence with which a command ends."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_run_folder_holds_everything_and_the_checkpoint_loads_alone(config: dict, tmp_path: Path) -> None:
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    run = tmp_path / "run"
    found = {path.relative_to(run).parts[0] for path in run.rglob("*")}
    assert found == {"config.yaml", "metrics.csv", "checkpoints", "samples"}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["model"]["init_args"]["recognizer"]["init_args"]["width"] == 16
    assert resolved["model"]["init_args"]["seed"] == resolved["data"]["init_args"]["seed"] == 7
    assert load(str(run / "checkpoints" / "best.ckpt")).width == 16


def test_resolved_configuration_repeats_the_run(config: dict, tmp_path: Path) -> None:
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    main(["fit", "--config", str(tmp_path / "run" / "config.yaml"), "--run_dir", str(tmp_path / "again")])
    first, second = (yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in ("run", "again"))
    assert {**first, "run_dir": "", "trainer": ""} == {**second, "run_dir": "", "trainer": ""}


def test_test_writes_a_row_an_utterance(config: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "last.ckpt"
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint), "--data.init_args.test=[dev]"])
    assert len((run / "test" / "results.jsonl").read_text().splitlines()) == 10
    assert "dev  none  run " in capsys.readouterr().out


def test_used_run_folder_is_refused_and_left_alone(config: dict, tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path / "c.yaml", config)
    main(["fit", "--config", str(path)])
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert "go on with --ckpt_path last" in mistake(capsys, "fit", "--config", path)
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}


def test_auto_starts_a_run_and_goes_on_with_it(config: dict, tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path / "c.yaml", config)
    main(["fit", "--config", str(path), "--ckpt_path", "auto", "--trainer.max_epochs=1"])
    first = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    main(["fit", "--config", str(path), "--ckpt_path", "auto", "--trainer.max_epochs=2"])
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) > len(first) and rows[-1].split(",")[1] == "1"
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert "no complete checkpoint" in mistake(capsys, "fit", "--config", path, "--ckpt_path", "auto")


def test_auto_starts_over_where_no_checkpoint_was_written(config: dict, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.5\n")
    (tmp_path / "run" / "config.yaml").write_text("{}\n")
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--ckpt_path", "auto"])
    assert "1.5" not in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1].split(",")


def test_checkpoint_settings_do_not_override_the_command_line(config: dict, tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path / "c.yaml", config)
    main(["fit", "--config", str(path)])
    capsys.readouterr()
    main(["fit", "--config", str(path), "--ckpt_path", "last", "--trainer.max_epochs=2"])
    out = capsys.readouterr().out
    assert "+  max_epochs: 2" in out
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[1] == "1", "the second epoch was run"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("--model.init_args.colour=3", "colour"),
        ("--trainer.max_epochs=many", "trainer.max_epochs"),
        ("--data.init_args.max_duration=nan", "max_duration"),
        ("--data.init_args.max_duration=-1", "max_duration"),
        ("--model.init_args.recognizer.init_args.width=-3", "width is -3"),
        ("--seed_everything=-1", "seed_everything must be 0 or more"),
        ("--data.init_args.manifests=nowhere", "nowhere/train.jsonl.gz"),
        ("--data.init_args.train=[nothing]", "nothing.jsonl.gz"),
        ("--optimizer=os.system", "os.system"),
        ("--checkpoint.every_n_steps=0", "checkpoint.every_n_steps"),
        ("--ckpt_path=last", "no complete checkpoint"),
        ("--ckpt_path=missing.ckpt", "missing.ckpt"),
        ("--config=missing.yaml", "missing.yaml"),
        ("--data.init_args.seed=3", "set seed_everything"),
        ("--trainer.precision=bf16-true", "trainer.precision: bf16-true"),
        ("--trainer.devices=[0,0]", "trainer: `devices`"),
        ("--trainer.val_check_interval=1.5", "val_check_interval"),
        ("--run_dir=/proc/x", "/proc/x: "),
        ("--trainer.logger=pytorch_lightning.loggers.WandbLogger", "pytorch_lightning.loggers.WandbLogger"),
        ("--trainer.logger=WandbLogger", "WandbLogger"),
        (
            "--trainer.callbacks+={class_path: ModelCheckpoint, init_args: {dirpath: /tmp}}",
            "dirpath: /tmp lies outside",
        ),
    ],
)
def test_mistake_is_one_sentence_that_names_the_field(
    change: str, sentence: str, config: dict, tmp_path: Path, capsys
) -> None:
    path = write_config(tmp_path / "c.yaml", config)
    assert sentence in mistake(capsys, "fit", "--config", path, change)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_dotted_key_beside_a_file_is_refused(config: dict, tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path / "c.yaml", {**config, "trainer.max_epochs": 3})
    assert "write one inside the other" in mistake(capsys, "fit", "--config", path)


def test_fragment_that_is_missing_is_named(config: dict, tmp_path: Path, capsys) -> None:
    path = write_config(tmp_path / "c.yaml", {**config, "fragments": {"trainer": "gpu.yaml"}})
    assert "gpu.yaml" in mistake(capsys, "fit", "--config", path)


def test_recipe_wins_over_its_fragment(config: dict, tmp_path: Path) -> None:
    trainer = config.pop("trainer")
    write_config(tmp_path / "trainer.yaml", {**trainer, "max_epochs": 9})
    config |= {"fragments": {"trainer": "trainer.yaml"}, "trainer": {"max_epochs": 1}}
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (resolved["trainer"]["max_epochs"], resolved["trainer"]["log_every_n_steps"]) == (1, 1)


@pytest.mark.parametrize("difference", ["architecture", "alphabet"])
def test_checkpoint_of_another_model_is_refused(difference: str, config: dict, tmp_path: Path, capsys) -> None:
    main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config))])
    recognizer = config["model"]["init_args"]["recognizer"]["init_args"]
    if difference == "architecture":
        recognizer["width"] = 20
    else:
        # As many letters, in another order: every tensor has the right shape.
        recognizer["tokenizer"] = {
            "class_path": "robust_asr.text.CharacterTokenizer",
            "init_args": {"characters": "ABCDEFGHIJKLMNOPQRSTUVWXYZ' "},
        }
    path = write_config(tmp_path / "other.yaml", config)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    message = mistake(capsys, "fit", "--config", path, "--run_dir", tmp_path / "new", "--ckpt_path", checkpoint)
    assert f"checkpoint of another {difference}" in message


def test_corrupt_flac_among_good_ones_is_named(config: dict, tmp_path: Path, capsys) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 8, "dev": 2})
    prepare.main(["librispeech", str(corpus), str(tmp_path / "manifests")])
    victim = sorted(corpus.rglob("*.flac"))[5]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    victim.write_bytes(content)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(victim)
    config["data"]["init_args"]["manifests"] = str(tmp_path / "manifests")
    path = write_config(tmp_path / "c.yaml", config)
    assert victim.name in mistake(capsys, "fit", "--config", path)


class Silence(pl.LightningDataModule):
    """Data of one's own, which take neither a sample rate nor a window."""

    def __init__(self, level: float = 0.0) -> None:
        super().__init__()
        self.level = level


@pytest.fixture
def assembled(monkeypatch: pytest.MonkeyPatch):
    """What the command line builds of a configuration; nothing is run."""
    monkeypatch.setattr(RobustCLI, "_run_subcommand", lambda cli, subcommand: None)
    monkeypatch.setattr(trust, "_opened", {"tests"})

    def build(subcommand: str, config: dict, folder: Path) -> RobustCLI:
        with guarded_imports():
            return RobustCLI([subcommand, "--config", str(write_config(folder / "c.yaml", config))])

    return build


def test_the_window_of_the_recognizer_reaches_the_batches(config: dict, tmp_path: Path, assembled) -> None:
    recognizer = {"class_path": "tests.toys.ToyWindowed", "init_args": {"window_seconds": 3.0}}
    config["model"]["init_args"]["recognizer"] = recognizer
    data = assembled("fit", config, tmp_path).datamodule
    assert data.window_seconds == 3.0 and data.sample_rate == 16_000
    data.setup("fit")
    # Batches of 8 seconds: two windows.
    assert max(map(len, data.train_dataloader().sampler)) == 2
    del config["optimizer"], config["lr_scheduler"]
    config["model"] = {
        "class_path": "lightning_modules.evaluation.Evaluation",
        "init_args": {"systems": {"compact": {"class_path": "tests.toys.ToyCTC"}, "windowed": recognizer}},
    }
    assert assembled("test", config, tmp_path).datamodule.window_seconds == 3.0


def test_a_recognizer_without_a_window_costs_what_it_hears(config: dict, tmp_path: Path, assembled) -> None:
    assert assembled("fit", config, tmp_path).datamodule.window_seconds < 1e-3


def test_data_of_ones_own_need_neither_sample_rate_nor_window(config: dict, tmp_path: Path, assembled) -> None:
    config["data"] = {"class_path": f"{__name__}.Silence", "init_args": {"level": 0.5}}
    assert assembled("fit", config, tmp_path).datamodule.level == 0.5


def test_the_callbacks_of_a_run_stand_in_one_order(config: dict, tmp_path: Path, assembled) -> None:
    config["trainer"] |= {"enable_progress_bar": True, "callbacks": [{"class_path": "tests.callbacks.PoisonAt"}]}
    config["trainer"]["callbacks"][0]["init_args"] = {"epoch": 9, "batch": 0, "rank": 0}
    names = [type(callback).__name__ for callback in assembled("fit", config, tmp_path).trainer.callbacks]
    resumed = ["ResumedSettings", "FirstEpoch", "RewindLoggers"]
    measuring = ["RankWatch", "PoisonAt", "RunProgress", *resumed, "LearningRateMonitor", "RunConfig"]
    assert names == [*measuring, "Preemption", "PlateauSteps", "RunCheckpoint", "LastCheckpoint"]
