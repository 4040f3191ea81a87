from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningCLI

from lightning_modules.callbacks.checkpoint_io import SafeCheckpointIO
from lightning_modules.command_line.cli import main
from lightning_modules.command_line.config_guard import check_arguments, guarded_imports
from robust_asr import checkpoint
from robust_asr.models.base import Recognizer
from robust_asr.storage import sealed, trust
from tests.robust_asr import forgery

CANARY = "canary_of_configurations"
EVIL = f"{CANARY}.Evil"


class Toy(pl.LightningModule):
    def __init__(
        self, recognizer: Recognizer, scale: float = 1.0, name: str = "", num: int = 1, table: dict | None = None
    ):
        super().__init__()
        self.recognizer = recognizer
        self.scale = scale
        self.name = name
        self.num = num


class Data(pl.LightningDataModule):
    def __init__(self, folder: str = "") -> None:
        super().__init__()


class CLI(LightningCLI):
    """What a command line of this project does about trust, and nothing else."""

    def __init__(self, argv: list[str]) -> None:
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            args=argv,
        )

    @staticmethod
    def subcommands():
        return {"fit": LightningCLI.subcommands()["fit"]}

    def _parse_ckpt_path(self) -> None:
        pass

    def instantiate_trainer(self, **kwargs):
        return super().instantiate_trainer(plugins=[SafeCheckpointIO()], **kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def run(argv: list[str], *, checked: bool = True) -> CLI:
    if checked:
        check_arguments(argv)
    with guarded_imports():
        return CLI(argv)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a module that must never be imported, and the tests' own classes opened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(trust, "_opened", {"tests"})
    code = f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Evil:\n    pass\ndef evil(*_):\n    pass\n"
    (tmp_path / f"{CANARY}.py").write_text(code)
    yield tmp_path
    assert CANARY not in sys.modules
    assert not (tmp_path / "imported").exists()


def honest() -> dict:
    recognizer = {"class_path": "robust_asr.models.compact.CompactCTC", "init_args": {"width": 16, "num_blocks": 1}}
    return {
        "seed_everything": 1,
        "trainer": {"accelerator": "cpu", "logger": False, "barebones": False, "enable_model_summary": False},
        "model": {"class_path": f"{__name__}.Toy", "init_args": {"recognizer": recognizer}},
        "data": {"class_path": f"{__name__}.Data"},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    }


def changed(path: str, value: object) -> str:
    """The honest configuration as YAML, with one field changed."""
    config = honest()
    *parents, last = path.split("/")
    node = config
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return yaml.safe_dump(config)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def fit(text: str, *more: str) -> list[str]:
    return ["fit", "--config", write("c.yaml", text), *more]


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SPEC = {"class_path": EVIL}
RECOGNIZER = "model/init_args/recognizer"
CALLBACKS = "trainer/callbacks"

# What somebody might write, and a word of the answer.
BY_NAME = {
    "model": (lambda: fit(changed("model", SPEC)), EVIL),
    "model as a text": (lambda: fit(changed("model", EVIL)), EVIL),
    "recogniser": (lambda: fit(changed(RECOGNIZER, SPEC)), EVIL),
    "recogniser as a text": (lambda: fit(changed(RECOGNIZER, EVIL)), EVIL),
    "recogniser as YAML in a text": (lambda: fit(changed(RECOGNIZER, f"{{class_path: {EVIL}}}")), EVIL),
    "recogniser as JSON in a text": (lambda: fit(changed(RECOGNIZER, json.dumps(SPEC))), EVIL),
    "inside the recogniser": (lambda: fit(changed(RECOGNIZER + "/init_args/tokenizer", SPEC)), EVIL),
    "data": (lambda: fit(changed("data", SPEC)), EVIL),
    "dotted keys": (lambda: fit(changed("model", None).replace("model: null", f"model.class_path: {EVIL}")), EVIL),
    "keyword arguments": (lambda: fit(changed("model/dict_kwargs", {"anything": SPEC})), EVIL),
    "optimizer": (lambda: fit(changed("optimizer", SPEC)), EVIL),
    "scheduler": (lambda: fit(changed("lr_scheduler", EVIL)), EVIL),
    "callback": (lambda: fit(changed(CALLBACKS, [SPEC])), EVIL),
    "callback as a text": (lambda: fit(changed(CALLBACKS, [EVIL])), EVIL),
    "logger": (lambda: fit(changed("trainer/logger", SPEC)), EVIL),
    "strategy": (lambda: fit(changed("trainer/strategy", SPEC)), EVIL),
    "plugin": (lambda: fit(changed("trainer/plugins", [SPEC])), EVIL),
    "profiler": (lambda: fit(changed("trainer/profiler", SPEC)), EVIL),
    "anchor and merge key": (
        lambda: fit(f"base: &base {{class_path: {EVIL}}}\n" + changed("model", None).replace("null", "{<<: *base}")),
        EVIL,
    ),
    "function of a callback": (
        lambda: fit(
            changed(
                CALLBACKS,
                [
                    {
                        "class_path": "pytorch_lightning.callbacks.StochasticWeightAveraging",
                        "init_args": {"swa_lrs": 0.1, "avg_fn": f"{CANARY}.evil"},
                    }
                ],
            )
        ),
        CANARY,
    ),
    "function of a schedule": (
        lambda: fit(
            changed(
                "lr_scheduler",
                {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.system"}},
            )
        ),
        "os.system",
    ),
    "a file beside it": (
        lambda: fit(changed("model", write("parts/m.yaml", yaml.safe_dump(SPEC)))),
        EVIL,
    ),
    "a file of a file": (
        lambda: [*fit(changed("model", "parts/a.yaml")), *write_chain()],
        EVIL,
    ),
    "a file without a suffix": (lambda: fit(changed("model", write("parts/model", yaml.safe_dump(SPEC)))), EVIL),
    "a file by option": (lambda: fit(changed("data", None), "--data", write("d.yaml", yaml.safe_dump(SPEC))), EVIL),
    "an option": (lambda: fit(yaml.safe_dump(honest()), f"--{RECOGNIZER.replace('/', '.')}={EVIL}"), EVIL),
    "an option with a space": (lambda: fit(yaml.safe_dump(honest()), "--optimizer", EVIL), EVIL),
    "an appended callback": (lambda: fit(yaml.safe_dump(honest()), f"--trainer.callbacks+={EVIL}"), EVIL),
    "an option of YAML": (lambda: fit(yaml.safe_dump(honest()), f"--model={{class_path: {EVIL}}}"), EVIL),
    "a class path by option": (lambda: fit(yaml.safe_dump(honest()), f"--model.class_path={EVIL}"), EVIL),
    "an abbreviated option": (lambda: ["fit", "--conf", write("c.yaml", changed("model", SPEC))], EVIL),
    "a short option": (lambda: ["fit", "-c" + write("c.yaml", changed("model", SPEC))], EVIL),
    "help for a class": (lambda: fit(yaml.safe_dump(honest()), f"--trainer.callbacks.help={EVIL}"), EVIL),
    "a module of the standard library": (
        lambda: fit(changed("model", {"class_path": "subprocess.Popen"})),
        "subprocess",
    ),
    "a library behind an allowed module": (
        lambda: fit(changed("model", {"class_path": "robust_asr.storage.sealed.zipfile.ZipFile"})),
        "zipfile",
    ),
    "a function of ours": (
        lambda: fit(changed(RECOGNIZER, {"class_path": "robust_asr.checkpoint.save"})),
        "not a class",
    ),
    "unchecked checkpoint files": (
        lambda: fit(changed("trainer/plugins", [{"class_path": "pytorch_lightning.plugins.io.TorchCheckpointIO"}])),
        "TorchCheckpointIO",
    ),
}
BY_TEXT = {
    "in a dictionary": (lambda: fit(changed("model/init_args/table", {"x": SPEC})), EVIL),
    "a package opened by a file": (lambda: fit(changed("allow_module", [CANARY])), "allow_module"),
    "a key twice": (lambda: fit(yaml.safe_dump(honest()) + "seed_everything: 2\n"), "seed_everything occurs twice"),
    "a key twice inside": (lambda: fit(changed("data", None) + "lr_scheduler: {a: 1, a: 2}\n"), "a occurs twice"),
    "a key twice, dotted": (lambda: fit(yaml.safe_dump(honest()) + "optimizer.class_path: torch.optim.SGD\n"), "both"),
    "an alias bomb": (lambda: fit(yaml.safe_dump(honest()) + BOMB), "aliases written out"),
    "an alias of itself": (lambda: fit("model: &m {init_args: *m}\n"), "part of"),
    "a python tag": (lambda: fit("model: !!python/object/apply:os.system ['touch imported']\n"), "tag"),
    "a binary tag": (lambda: fit("model: !!binary aGk=\n"), "tag"),
    "nan": (lambda: fit(changed("model/init_args/scale", float("nan"))), ".nan"),
    "infinity": (lambda: fit(changed("model/init_args/scale", "-.INF")), "finite"),
    "overflow": (lambda: fit(changed("model/init_args/scale", 1).replace("scale: 1", "scale: 1e999")), "finite"),
    "nan by option": (lambda: fit(yaml.safe_dump(honest()), "--model.init_args.scale=.nan"), "finite"),
    "base 8": (lambda: fit(changed("model/init_args/num", 1).replace("num: 1", "num: 010")), "base 8"),
    "base 60": (lambda: fit(changed("model/init_args/num", 1).replace("num: 1", "num: 1:30")), "base 8 or 60"),
    "a key that is a truth value": (lambda: fit("on: 1\n"), "key"),
    "a private key": (lambda: fit("model: {__path__: x}\n"), "__path__"),
    "a million levels": (lambda: fit("a: " + "[" * 1_000_000), "levels"),
    "two megabytes": (lambda: fit("a: " + "x" * 2**21), "bytes"),
    "two documents": (lambda: fit("a: 1\n---\nmodel: 1\n"), "one document"),
    "no YAML": (lambda: fit("a: [1, 2\nb: }"), "cannot be read as YAML"),
    "no text": (lambda: ["fit", "--config", write_bytes("c.yaml", b"\xff\xfe\x00a")], "YAML"),
    "a strategy with files of its own": (
        lambda: fit(changed("trainer/strategy", "deepspeed_stage_3")),
        "nothing checks",
    ),
    "a URL": (lambda: ["fit", "--config", "https://example.com/c.yaml"], "local"),
    "a nested URL": (lambda: fit(changed("data", "https://example.com/c.yaml")), "local"),
    "standard input": (lambda: ["fit", "--config", "-"], "local"),
    "a missing file": (lambda: ["fit", "--config", "absent.yaml"], "absent.yaml"),
    "an unknown key": (lambda: fit(changed("trainer/max_epoch", 3)), "max_epoch"),
    "a wrong type": (lambda: fit(changed("model/init_args/num", "three")), "three"),
}


def write_chain() -> list[str]:
    write("parts/a.yaml", f"class_path: {__name__}.Toy\ninit_args: {{recognizer: deeper/b.yaml}}\n")
    write("parts/deeper/b.yaml", yaml.safe_dump(SPEC))
    return []


def write_bytes(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


def refusal(argv: list[str], capsys, *, checked: bool) -> str:
    with pytest.raises((ValueError, SystemExit)) as refused:
        run(argv, checked=checked)
    if isinstance(refused.value, SystemExit):
        assert refused.value.code == 2
    return f"{refused.value} {capsys.readouterr().err}"


@pytest.mark.parametrize("name", [*BY_NAME, *BY_TEXT])
def test_malicious_configuration_is_refused_with_a_sentence(name, capsys):
    make, word = (BY_NAME | BY_TEXT)[name]
    assert word in refusal(make(), capsys, checked=True)


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_is_imported_even_where_the_text_was_not_checked(name, capsys):
    make, word = BY_NAME[name]
    assert word in refusal(make(), capsys, checked=False)


@pytest.mark.parametrize("name", ["a key twice", "an alias bomb", "nan", "base 8", "a nested URL", "a million levels"])
def test_no_other_yaml_is_read_even_where_the_text_was_not_checked(name, capsys):
    refusal(BY_TEXT[name][0](), capsys, checked=False)


def test_the_environment_configures_nothing(monkeypatch):
    monkeypatch.setenv("PL_FIT__MODEL", EVIL)
    monkeypatch.setenv("PL_CONFIG", write("evil.yaml", changed("model", SPEC)))
    assert run(fit(yaml.safe_dump(honest()))).model.num == 1
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    with pytest.raises(ValueError, match="JSONARGPARSE_DEFAULT_ENV"):
        run(fit(yaml.safe_dump(honest())))


def test_honest_configurations_pass():
    config = honest()
    write("parts/recognizer.yaml", yaml.safe_dump(config["model"]["init_args"]["recognizer"]))
    write("parts/model.yaml", f"class_path: {__name__}.Toy\ninit_args: {{recognizer: recognizer.yaml, name: '010'}}\n")
    config["model"] = "parts/model.yaml"
    config["trainer"] |= {
        "callbacks": [
            "pytorch_lightning.callbacks.LearningRateMonitor",
            {"class_path": "EarlyStopping", "init_args": {"monitor": "x"}},
        ],
        "logger": {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": "runs/a.b"}},
        "strategy": "auto",
        "max_time": "00:01:00:00",
        "gradient_clip_val": 1.0,
    }
    more = [
        "--model.init_args.scale",
        "2.5",
        "--optimizer=SGD",
        "--lr_scheduler",
        "CosineAnnealingLR",
        "--lr_scheduler.T_max=5",
    ]
    cli = run(fit(yaml.safe_dump(config), *more, "--trainer.max_epochs", "3", "--data.init_args.folder=a.b.c"))
    assert cli.model.recognizer.width == 16
    assert (cli.model.scale, cli.model.name, cli.trainer.max_epochs) == (2.5, "010", 3)
    assert type(cli.config_init.fit.optimizer["class_path"]) is str
    assert {"LearningRateMonitor", "EarlyStopping"} <= {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert isinstance(cli.trainer.strategy.checkpoint_io, SafeCheckpointIO)


def test_a_package_is_opened_on_the_command_line(folder):
    (folder / "my_package.py").write_text(
        "from pytorch_lightning.callbacks import Callback\nclass Mine(Callback):\n    pass\n"
    )
    argv = fit(changed(CALLBACKS, ["my_package.Mine"]))
    with pytest.raises(ValueError, match="--allow_module my_package"):
        check_arguments(argv)
    for spelling in (
        ["--allow_module", "my_package"],
        ["--allow_module=['my_package']"],
        ["--allow_module+=my_package"],
    ):
        trust._opened.discard("my_package")
        check_arguments([*argv, *spelling])
    assert type(run(argv).trainer.callbacks[0]).__name__ == "Mine"
    sys.modules.pop("my_package")


def test_a_checkpoint_as_the_start_of_a_configuration(folder):
    checkpoint.save(forgery.tiny(), folder / "model.ckpt")
    spec = {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": "model.ckpt"}}
    loaded = run(fit(changed(RECOGNIZER, spec))).model.recognizer
    recorded = sealed.read("model.ckpt")[checkpoint.KEY]["parts"]["recognizer"]
    assert checkpoint.weights_hash(loaded) == recorded["weights_hash"]


def test_a_checkpoint_changes_no_setting(folder):
    hyper_parameters = {"_class_path": EVIL, "num": 9, "_instantiator": f"{CANARY}.evil"}
    sealed.write({"hyper_parameters": hyper_parameters, "state_dict": {}}, folder / "last.ckpt")
    cli = run(fit(changed("model/init_args/num", 3), "--ckpt_path", "last.ckpt"))
    assert cli.model.num == 3


def test_the_guard_leaves_jsonargparse_as_it_was():
    import jsonargparse
    from jsonargparse import _typehints, _util

    before = (
        _util.import_object,
        _typehints.import_object,
        _typehints.check_import_path,
        jsonargparse.get_loader("yaml"),
    )
    with pytest.raises(RuntimeError), guarded_imports(), guarded_imports():
        assert _typehints.import_object is not before[1]
        raise RuntimeError
    after = (
        _util.import_object,
        _typehints.import_object,
        _typehints.check_import_path,
        jsonargparse.get_loader("yaml"),
    )
    assert after == before


SECRETS = {"no YAML": "root:$6$SECRET:1\nb: [SECRET: x\n", "one line": "SECRET\n", "a quote": 'a: 1\n"SECRET\n'}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "option", ["config", "values", "model", "data", "optimizer", "trainer.callbacks", "checkpoint"]
)
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_file_that_is_no_configuration_is_not_shown(name: str, option: str, suffix: str, capsys) -> None:
    file = write(f"private/shadow{suffix}", SECRETS[name])
    with pytest.raises(SystemExit) as stopped:
        main(fit(yaml.safe_dump({"seed_everything": 1}), f"--{option}={file}"))
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and "private/shadow" in shown and "SECRET" not in shown
