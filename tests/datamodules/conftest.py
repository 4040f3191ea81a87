"""A corpus of noise in LibriSpeech's layout, small enough to be read in a blink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.preparing.librispeech import prepare_corpus


def write_utterance(root: Path, part: str, utterance: str, text: str, *, seconds: float, rate: int = 16_000) -> Path:
    """One FLAC file of quiet noise and its line in the transcript."""
    folder = root.joinpath(part, *utterance.split("-")[:-1])
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(utterance.encode())).normal(0, 0.05, round(seconds * rate))
    path = folder / f"{utterance}.flac"
    soundfile.write(path, noise.clip(-1, 1), rate, subtype="PCM_16")
    speaker, chapter, _ = utterance.split("-")
    with open(folder / f"{speaker}-{chapter}.trans.txt", "a") as transcript:
        transcript.write(f"{utterance} {text}\n")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """47 training utterances of 5 speakers, 11 of another two to validate on, 0.02 to 0.5 s."""
    root = tmp_path_factory.mktemp("corpus")
    lengths = np.random.default_rng(0).uniform(0.1, 0.5, 64)
    for index in range(47):
        write_utterance(root, "train", f"{index % 5}-1-{index:04d}", f"TEXT {index}", seconds=lengths[index])
    for index in range(11):
        write_utterance(root, "dev", f"{7 + index % 2}-1-{index:04d}", f"WORDS {index}", seconds=lengths[50 + index])
    return root


@pytest.fixture(scope="session")
def manifests(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("manifests")
    assert not prepare_corpus(corpus, out, num_jobs=1)
    return out


@pytest.fixture(scope="session")
def real_manifests(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``an4`` and ``Speech``: folders of the manifests of the real speech."""
    out = tmp_path_factory.mktemp("real")
    for name in ("an4", "LibriSpeech"):
        assert not prepare_corpus(shared_data / name, out / name)
    return out
