from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.command_line import ROOT
from tests.corpus import write_corpus

torch.set_num_threads(1)
# A test is right or wrong, however busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real speech; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("RASR_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "an4").is_dir():
        pytest.skip(f"no real speech in {folder}: set RASR_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests of a corpus of 40 training and 10 dev utterances of tones."""
    from datamodules.prepare import main

    folder = tmp_path_factory.mktemp("tiny")
    corpus = write_corpus(folder / "corpus", {"train": 40, "dev": 10})
    main(["librispeech", str(corpus), str(folder / "manifests")])
    return folder / "manifests"
