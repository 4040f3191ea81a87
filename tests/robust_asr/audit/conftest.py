from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from robust_asr import checkpoint
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import spoken


def write_spoken(folder: Path, num: int = 4) -> Path:
    """What ``four_words`` hears, as audio files with their texts beside them."""
    folder.mkdir(parents=True)
    batch = spoken(num, seed=3)
    for row, length in enumerate(batch.lengths.tolist()):
        soundfile.write(folder / f"said{row}.wav", batch.waveforms[row, :length].numpy(), 16_000, subtype="FLOAT")
        (folder / f"said{row}.txt").write_text(f"{batch.texts[row]}\n")
    return folder


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spoken(tmp_path_factory.mktemp("spoken") / "audio")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "words.ckpt"
    checkpoint.save(four_words(), path)
    return path
