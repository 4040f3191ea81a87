"""What the numbers of a stranger's description ask for is refused before anything is allocated."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from robust_asr import checkpoint
from robust_asr.defenses.base import Chain, Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.adapter import CTCAdapter
from robust_asr.models.conformer import ConformerCTC, ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.models.deepspeech2 import DeepSpeech2
from robust_asr.models.features import LogMel
from robust_asr.models.spec_augment import SpecAugment
from robust_asr.storage.describe import describe
from robust_asr.storage.trial import trial_build
from tests.robust_asr import forgery

SMALL = {"num_mels": 8, "subsampling_channels": 2, "width": 4, "num_layers": 1, "num_heads": 2, "feed_forward_width": 4}
TASNET = {"num_filters": 4, "num_feats": 4, "num_hidden": 4, "num_layers": 2}
# Modules of any kind may be described in the place of a denoiser's network.
MODULES: dict[str, nn.Module] = {
    "CompactCTC": forgery.tiny(),
    "ConformerCTC": ConformerCTC(ConformerEncoder(**SMALL, spec_augment=SpecAugment())),
    "ConformerLFMMI": ConformerLFMMI(ConformerEncoder(**SMALL, subsampling="strided")),
    "DeepSpeech2": DeepSpeech2(conv_channels=1, rnn_hidden=2, rnn_layers=2),
    "Denoise": Defended(Chain([GaussianNoise(0.1), Denoise(ConvTasNet(**TASNET))]), forgery.tiny()),
    "MultiResolutionSTFT": Defended(Denoise(MultiResolutionSTFT((512,), (100,), (400,))), forgery.tiny()),
    "LogMel": CTCAdapter(LogMel(num_mels=8), hop=160, receptive_field=0),
}
HOSTILE = (-(10**9), -1, 0, 10**5, 2**24, 10**9, 10**18, 10**300, 1e9, 1e300)


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(item, (*path, key))
    elif isinstance(value, int | float):
        yield path


def changed(description: Any, path: tuple[Any, ...], number: float) -> Any:
    copy = json.loads(json.dumps(description))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = number
    return copy


@pytest.mark.parametrize("name", MODULES)
def test_no_number_of_a_description_takes_memory(name):
    module = MODULES[name]
    description = json.loads(json.dumps(describe(module)))
    trial_build(description, module.state_dict(), expected=nn.Module, field="model.ckpt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in numbers(description):
        for number in HOSTILE:
            hostile = changed(description, path, number)
            try:
                built = trial_build(hostile, module.state_dict(), expected=nn.Module, field="model.ckpt")
                checkpoint.check_state(module.state_dict(), built, "model.ckpt")
            except ValueError as error:
                assert str(error).startswith("model.ckpt") and len(str(error)) < 800, (path, number)
                assert "cannot be built without memory" not in str(error), (path, number, str(error))
            else:
                tables = sum(tensor.nbytes for tensor in built.buffers())
                assert tables < 2**27, (path, number)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"


@pytest.mark.parametrize("kind", [DeepSpeech2, lambda: ConformerCTC(ConformerEncoder()), lambda: Denoise(ConvTasNet())])
def test_models_of_full_size_are_built(kind):
    with torch.device("meta"):
        module = kind()
    built = trial_build(describe(module), module.state_dict(), expected=nn.Module, field="model.ckpt")
    checkpoint.check_state(module.state_dict(), built, "model.ckpt")


def test_a_table_of_the_cpu_is_counted_before_it_is_made():
    with pytest.raises(ValueError, match=r"describes tensors of more than 1\.05 GB, the file accounts for 0\.13 GB"):
        trial_build(
            {"class_path": "robust_asr.models.features.LogMel", "init_args": {"num_mels": 10**6}},
            {"any": torch.zeros(10)},
            expected=nn.Module,
            field="model.ckpt",
        )
