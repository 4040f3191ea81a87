"""The fragments of configs/data build their datamodules."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from datamodules import Speech

FRAGMENTS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_a_fragment_builds_its_datamodule(path: Path):
    fragment = yaml.safe_load(path.read_text())
    module, _, name = fragment["class_path"].rpartition(".")
    data = getattr(import_module(module), name)(**fragment["init_args"])
    assert isinstance(data, Speech)
    for stage in ("validate", "test", "predict"):
        assert data.dataloader_names(stage)
