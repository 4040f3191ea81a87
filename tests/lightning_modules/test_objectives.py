"""The arguments that all training objectives share are written once, and each objective knows, types and checks them."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentError
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningArgumentParser

RECOGNIZER = {"class_path": "robust_asr.models.compact.CompactCTC"}
FGSM = {
    "class_path": "robust_asr.attacks.fgsm.FGSM",
    "init_args": {"threat": {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 0.01}}},
}
DENOISER = {
    "class_path": "robust_asr.defenses.denoise.Denoise",
    "init_args": {"network": {"class_path": "robust_asr.models.conv_tasnet.ConvTasNet"}},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "recognition.Recognition": {},
    "gaussian.GaussianAugmentation": {"sigma_max": 0.1},
    "adversarial.AdversarialFinetuning": {"attack": FGSM},
    "denoiser.DenoiserTraining": {"denoiser": DENOISER},
    "joint.JointDenoiserASR": {"attack": FGSM, "denoiser": DENOISER, "clean_share": 0.5},
}
COMMON = {
    "seed": 3,
    "lr_interval": "step",
    "search": {"class_path": "robust_asr.search.greedy.GreedySearch"},
    "max_gradient_norm": 2.5,
}


@pytest.fixture(scope="module")
def parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    return parser


def parsed(parser: LightningArgumentParser, objective: str, **arguments: Any) -> dict[str, Any]:
    init_args = {"recognizer": RECOGNIZER, **OBJECTIVES[objective], **arguments}
    content = {"model": {"class_path": f"lightning_modules.{objective}", "init_args": init_args}}
    return parser.parse_object(content).model.init_args.as_dict()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_common_arguments_are_known(objective: str, parser: LightningArgumentParser) -> None:
    assert {"seed": 0, "lr_interval": "epoch", "search": None, "max_gradient_norm": 1.0}.items() <= parsed(
        parser, objective
    ).items()
    given = parsed(parser, objective, **COMMON)
    assert given["search"].pop("init_args", {}) == {}
    assert COMMON.items() <= given.items()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("seed", "three", "three"),
        ("lr_interval", "week", "week"),
        ("max_gradient_norm", "far", "far"),
        ("search", FGSM, "Search"),
        ("lr_intervall", "step", "lr_intervall"),
        ("sede", 3, "sede"),
    ],
)
def test_wrong_values_and_typing_errors_are_refused(
    objective: str, name: str, value: object, named: str, parser: LightningArgumentParser
) -> None:
    with pytest.raises(ArgumentError, match=named):
        parsed(parser, objective, **{name: value})
