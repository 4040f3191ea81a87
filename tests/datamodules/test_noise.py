"""Environmental sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datamodules.prepare import main
from datamodules.preparing.noise import prepare_noise
from datamodules.sounds import Sounds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mono and a stereo sound of two classes, an overshooting one, and three that cannot be used."""
    folder = tmp_path / "sounds"
    for name in ("rain", "dog"):
        (folder / name).mkdir(parents=True)
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(44_100) / 44_100)
    soundfile.write(folder / "rain/one.ogg", tone, 44_100, format="OGG", subtype="VORBIS")
    soundfile.write(folder / "dog/two.wav", np.stack([tone, -0.5 * tone], 1), 44_100)
    soundfile.write(folder / "dog/loud.wav", 4 * tone, 44_100, subtype="FLOAT")
    soundfile.write(folder / "dog/silent.wav", 0 * tone, 44_100)
    soundfile.write(folder / "dog/two.flac", tone, 44_100)
    (folder / "rain/broken.ogg").write_bytes(b"OggS" + bytes(100))
    (folder / "README.md").write_text("not audio")
    return folder


def test_sounds_become_mono_at_16_khz_and_what_cannot_is_named(folder: Path, tmp_path: Path):
    findings = prepare_noise(folder, tmp_path / "out", num_jobs=2)
    lines = sorted(str(finding) for finding in findings)
    assert len(lines) == 3
    for name, message in (("silent.wav", "is silent"), ("broken.ogg", "cannot be read"), ("two.wav", "occurs twice")):
        assert any(name in line and message in line for line in lines)
    sounds = Sounds(str(tmp_path / "out"))
    assert [cut.id for cut in sounds.cuts] == ["dog-loud", "dog-two", "rain-one"]
    for index, peak in enumerate((1.0, 0.5, 0.5)):
        assert len(sounds[index]) == pytest.approx(16_000, abs=2)
        assert float(sounds[index].abs().max()) == pytest.approx(peak, abs=0.03)
        frequency = torch.fft.rfft(sounds[index]).abs().argmax() * 16_000 / len(sounds[index])
        assert float(frequency) == pytest.approx(500, abs=1)


def test_a_segment_is_decided_by_its_seed_and_has_any_length(folder: Path, tmp_path: Path):
    prepare_noise(folder, tmp_path / "out", num_jobs=1)
    sounds = Sounds(str(tmp_path / "out"))
    for num_samples in (10, 16_000, 50_000):
        torch.testing.assert_close(sounds.segment(7, num_samples), sounds.segment(7, num_samples))
        assert len(sounds.segment(7, num_samples)) == num_samples
    assert len({tuple(sounds.segment(seed, 10).tolist()) for seed in range(20)}) > 10


def test_the_command_line_tells_what_is_wrong(folder: Path, tmp_path: Path, capsys):
    assert main(["noise", str(folder), str(tmp_path / "out"), "--strict"]) == 1
    assert "3 findings" in capsys.readouterr().out
    assert main(["noise", str(folder), str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["noise", str(tmp_path / "empty"), str(tmp_path / "other")]) == 2
    assert "holds no file that ends in" in capsys.readouterr().err


@pytest.mark.shared_data
def test_esc10_is_prepared(shared_data: Path, tmp_path: Path):
    assert not prepare_noise(shared_data / "esc10", tmp_path / "out")
    sounds = Sounds(str(tmp_path / "out"))
    assert len(sounds) == 80
    assert len({cut.id.split("-")[1] for cut in sounds.cuts}) == 10
    assert 0 < sounds.segment(0, 16_000).abs().max() <= 1
