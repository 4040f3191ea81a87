from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.text import CharacterTokenizer, Tokenizer

ALLOWED = [
    "robust_asr.models.compact.CompactCTC",
    "datamodules.Speech",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.progress.TQDMProgressBar",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.strategies.DDPStrategy",
    "pytorch_lightning.plugins.environments.SLURMEnvironment",
    "pytorch_lightning.cli.ReduceLROnPlateau",
]
REFUSED = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "robust_asr_evil.Model",
    "robust_asrx.models.Model",
    "pytorch_lightning.cli.instantiate_module",
    "pytorch_lightning.plugins.io.TorchCheckpointIO",
    "pytorch_lightning.strategies.FSDPStrategy",
    "pytorch_lightning.loggers.CometLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "pytorch_lightning.loggers.wandb.WandbLogger",
    "pytorch_lightning.loggers.csv_logs.ExperimentWriter",
    "pytorch_lightning.callbacks.LambdaCallback",
    "pytorch_lightning.callbacks.OnExceptionCheckpoint",
    "pytorch_lightning.callbacks.Timer.inner",
    "pytorch_lightning.profilers.XLAProfiler",
    "robust_asr",
    "robust_asr.",
    "robust_asr..text",
    "robust_asr.__class__.Model",
    "robust_asr.models/../evil.Model",
    "",
    None,
    7,
]


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.setattr(trust, "_opened", set())


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_configuration_needs_may_be_named(name):
    trust.check_name(name)


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_may_not(name):
    with pytest.raises(ValueError, match="model"):
        trust.check_name(name, field="model")


def test_nothing_outside_the_list_is_imported(tmp_path, monkeypatch, opened):
    (tmp_path / "canary_of_trust.py").write_text("class Model:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="--allow_module canary_of_trust"):
        trust.resolve("canary_of_trust.Model")
    assert "canary_of_trust" not in sys.modules
    trust.allow_module("canary_of_trust")
    assert trust.resolve("canary_of_trust.Model").__name__ == "Model"


@pytest.mark.parametrize(
    "name",
    [
        "robust_asr.checkpoint.os",
        "robust_asr.storage.sealed.zipfile.ZipFile",
        "robust_asr.storage.sealed.Path",
        "robust_asr.storage.sealed.hashlib.new",
    ],
)
def test_what_an_allowed_module_imports_stays_out_of_reach(name):
    with pytest.raises(ValueError):
        trust.resolve(name)


@pytest.mark.parametrize("name", ["os", "torch", "pytorch_lightning.utilities", "jsonargparse", "a-b", "", "../x"])
def test_only_a_package_of_ones_own_is_opened(name, opened):
    with pytest.raises(ValueError, match="allow_module"):
        trust.allow_module(name)


def test_build_is_the_inverse_of_describe():
    model = CompactCTC(CharacterTokenizer("AB "), width=16, num_blocks=1, dropout=0.25)
    again = trust.build(describe(model), expected=Recognizer)
    assert describe(again) == describe(model)
    assert again.tokenizer.characters == "AB "


@dataclass
class Sizes:
    widths: tuple[int, ...]
    mode: Literal["a", "b"] = "a"
    scale: float | None = None
    tokenizers: dict[str, Tokenizer] | None = None


@pytest.fixture
def sizes(opened):
    trust.allow_module("tests")
    return {"class_path": f"{__name__}.Sizes", "init_args": {"widths": [1, 2]}}


def test_values_take_the_type_of_their_parameter(sizes):
    tokenizer = {"class_path": "robust_asr.text.CharacterTokenizer", "init_args": {"characters": "AB"}}
    sizes["init_args"] |= {"scale": 1, "tokenizers": {"x": tokenizer}}
    built = trust.build(sizes, expected=Sizes)
    assert built.widths == (1, 2)
    assert built.tokenizers["x"].characters == "AB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": [1.5]}, r"d\.widths\[0\]: 1.5 is not of type int"),
        ({"widths": "abc"}, "d.widths"),
        ({"widths": [True]}, "d.widths"),
        ({"widths": [1], "mode": "c"}, "d.mode"),
        ({"widths": [1], "scale": float("nan")}, "d.scale"),
        ({"widths": [1], "scale": "1"}, "d.scale"),
        ({"widths": [1], "depth": 3}, "'widths'"),
        ({}, "widths"),
        ({"widths": {"class_path": "os.system", "init_args": {}}}, r"d\.widths\.class_path.*os\.system"),
        (
            {"widths": [1], "tokenizers": {"x": {"class_path": "robust_asr.text.Tokenizer", "init_args": {}}}},
            r"d\.tokenizers\.x\.class_path",
        ),
    ],
)
def test_a_wrong_argument_is_named(sizes, arguments, message):
    sizes["init_args"] = arguments
    with pytest.raises(ValueError, match=message):
        trust.build(sizes, expected=Sizes, field="d")


def test_a_class_of_another_kind_is_refused():
    description = {"class_path": "robust_asr.text.CharacterTokenizer", "init_args": {}}
    with pytest.raises(ValueError, match=r"recognizer\.class_path.*is not a Recognizer"):
        trust.build(description, expected=Recognizer, field="recognizer")


def test_a_function_is_not_an_architecture():
    description = {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": "x"}}
    with pytest.raises(ValueError, match="is not a class"):
        trust.build(description, expected=Recognizer)
