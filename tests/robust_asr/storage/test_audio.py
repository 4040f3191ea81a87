"""Audio is what its manifest says, or one clear error."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robust_asr.storage.audio import MAX_SAMPLES, Header, measured, read_audio

RATE, SIZE = 16_000, 4_000


@pytest.fixture
def tone() -> np.ndarray:
    return 0.5 * np.sin(np.arange(SIZE) / 7)


def _written(path: Path, samples: np.ndarray, subtype: str, rate: int = RATE, kind: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, format=kind)
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 1e-7),
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
    ],
)
def test_every_accepted_format_gives_the_samples_back(name, subtype, error, tone, tmp_path: Path):
    path = _written(tmp_path / name, tone, subtype)
    assert measured(path)[0] == Header(RATE, 1, SIZE, subtype)
    for source in (path, path.read_bytes()):
        samples = read_audio(source, sample_rate=RATE, num_samples=SIZE)
        assert samples.dtype == (np.int16 if subtype == "PCM_16" else np.float32)
        scale = 2.0**-15 if subtype == "PCM_16" else 1.0
        np.testing.assert_allclose(samples * scale, tone, atol=error)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"sample_rate": 8_000}, "has sampling_rate 16000, but 8000 is declared"),
        ({"num_samples": SIZE + 1}, f"has num_samples {SIZE}, but {SIZE + 1} is declared"),
        ({"num_samples": SIZE - 1}, f"has num_samples {SIZE}, but {SIZE - 1} is declared"),
    ],
)
def test_header_and_declaration_must_agree(declared, message, tone, tmp_path: Path):
    path = _written(tmp_path / "a.flac", tone, "PCM_16")
    with pytest.raises(ValueError, match=message):
        read_audio(path, **{"sample_rate": RATE, "num_samples": SIZE, **declared})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, tone: _written(path, np.stack([tone, tone], 1), "PCM_16"), "has 2 channels; mono is accepted"),
        (lambda path, tone: _written(path, np.r_[tone[:-1], np.nan], "FLOAT", kind="WAV"), "not finite"),
        (lambda path, tone: _written(path, np.r_[tone[:-1], np.inf], "DOUBLE", kind="WAV"), "not finite"),
        (
            lambda path, tone: _written(path, tone * 1e6, "FLOAT", kind="WAV"),
            r"up to .*the accepted range is \[-1, 1\]",
        ),
        (lambda path, tone: _written(path, tone, "VORBIS", kind="OGG"), "neither FLAC nor WAV"),
        (lambda path, tone: _written(path, tone, "PCM_16", kind="AIFF"), "neither FLAC nor WAV"),
        (lambda path, tone: _written(path, tone, "MS_ADPCM", kind="WAV"), "codec 0x0002; PCM and float are accepted"),
        (lambda path, tone: _written(path, tone, "GSM610", kind="WAV"), "codec 0x0031"),
        (lambda path, tone: _written(path, tone, "ULAW", kind="WAV"), "codec 0x0007"),
        (lambda path, tone: path.write_bytes(b""), "is an empty file"),
        (lambda path, tone: path.write_bytes(b"RIFF\x10\0\0\0WAVE"), "without a format chunk"),
        (lambda path, tone: path.write_text("#!/bin/sh\n"), "neither FLAC nor WAV"),
        (lambda path, tone: path.mkdir(), "is not a regular file"),
        (lambda path, tone: None, "cannot be opened"),
    ],
)
def test_anything_else_is_refused(write, message, tone, tmp_path: Path):
    path = tmp_path / "a.flac"
    write(path, tone)
    with pytest.raises(ValueError, match=message):
        read_audio(path, sample_rate=RATE, num_samples=SIZE)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_flipped_bit_in_the_samples_of_a_flac_is_noticed(subtype, tmp_path: Path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SIZE)
    path = _written(tmp_path / "a.flac", noise, subtype)
    content = bytearray(path.read_bytes())
    content[-2_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"MD5|decoded|breaks off"):
        read_audio(path, sample_rate=RATE, num_samples=SIZE)


def test_a_truncated_file_is_noticed(tone, tmp_path: Path):
    for name in ("a.flac", "a.wav"):
        path = _written(tmp_path / name, tone, "PCM_16")
        path.write_bytes(path.read_bytes()[:-1_000])
        with pytest.raises(ValueError, match=r"breaks off|decoded|MD5|num_samples"):
            read_audio(path, sample_rate=RATE, num_samples=SIZE)


def without_length(path: Path) -> Path:
    """The file as an encoder leaves it that wrote to a pipe: no number of samples in the header."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".flac":
        content[21] &= 0xF0
        content[22:42] = bytes(20)
    else:
        place = content.index(b"data") + 4
        content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_a_header_without_a_length_is_decoded_and_counted(name: str, tone, tmp_path: Path):
    path = without_length(_written(tmp_path / name, tone, "PCM_16"))
    # libsndfile takes the length of a WAV file from the file's size.
    assert measured(path)[0] == Header(RATE, 1, SIZE, "PCM_16")
    for source in (path, path.read_bytes()):
        samples = read_audio(source, sample_rate=RATE, num_samples=SIZE)
        np.testing.assert_allclose(samples * 2.0**-15, tone, atol=2**-15)


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize("whole", [0, 36, 0xFFFF_FFFF])
def test_the_sizes_that_writers_into_a_pipe_leave_in_wave_are_no_lengths(size: int, whole: int, tone, tmp_path: Path):
    path = _written(tmp_path / "a.wav", tone, "PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8], content[40:44] = struct.pack("<I", whole), struct.pack("<I", size)
    path.write_bytes(content)
    for source in (path, bytes(content)):
        header, samples = measured(source)
        assert header == Header(RATE, 1, SIZE, "PCM_16")
        np.testing.assert_allclose(samples * 2.0**-15, tone, atol=2**-15)


def test_wave_without_samples_has_none_also_where_other_chunks_follow(tmp_path: Path):
    path = _written(tmp_path / "a.wav", np.zeros(0), "PCM_16")
    content = bytearray(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    content[4:8] = struct.pack("<I", len(content) - 8)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="has no samples"):
        measured(path)


def test_wave_that_breaks_off_is_noticed_where_nothing_is_declared(tone, tmp_path: Path):
    path = _written(tmp_path / "a.wav", tone, "PCM_16")
    path.write_bytes(path.read_bytes()[:-1_000])
    with pytest.raises(ValueError, match="breaks off: its header declares 8000 bytes of samples, 7000 are there"):
        measured(path)


@pytest.mark.parametrize(
    ("declared", "message"), [(SIZE - 1, f"goes on after the {SIZE - 1}"), (SIZE + 1, f"breaks off after {SIZE} of")]
)
def test_without_a_length_the_samples_must_agree_with_the_declaration(declared, message, tone, tmp_path: Path):
    path = without_length(_written(tmp_path / "a.flac", tone, "PCM_16"))
    with pytest.raises(ValueError, match=message):
        read_audio(path, sample_rate=RATE, num_samples=declared)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path):
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(MAX_SAMPLES // 2**20 + 1):
            file.write(np.zeros(2**20, np.int16))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=f"1 to {MAX_SAMPLES} are accepted"):
        measured(path)


def _mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Flips, zeroes, cuts, repeats or swaps some of the bytes, as often near the header as anywhere."""
    content = bytearray(content)
    end = len(content) if generator.random() < 0.5 else 200
    start = int(generator.integers(end))
    length = int(generator.integers(1, 200))
    match generator.integers(6):
        case 0:
            content[start] ^= 1 << int(generator.integers(8))
        case 1:
            content[start : start + length] = bytes(len(content[start : start + length]))
        case 2:
            del content[start:]
        case 3:
            content[start:start] = content[start : start + length]
        case 4:
            content[start : start + length] = generator.bytes(length)
        case 5:
            content[start : start + 8] = b"\xff" * 8
    return bytes(content)


READ_ALL = """
import json, resource, signal, sys
from pathlib import Path
from robust_asr.storage.audio import read_audio
resource.setrlimit(resource.RLIMIT_AS, (2**30 + 2**29, 2**30 + 2**29))
outcome = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    signal.alarm(20)
    try:
        outcome[path.name] = len(read_audio(path, sample_rate=16_000, num_samples=4_000, lossy=True))
    except ValueError as error:
        outcome[path.name] = str(error)
    signal.alarm(0)
print(json.dumps(outcome))
"""


def _read_in_a_process_with_limits(folder: Path) -> dict[str, int | str]:
    """1.5 GB of address space, 20 s a file; only ValueError may come."""
    finished = subprocess.run([sys.executable, "-c", READ_ALL, str(folder)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("num_files", [100, pytest.param(2_000, marks=pytest.mark.long)])
def test_mutated_files_neither_crash_nor_hang_nor_pass_for_other_audio(num_files: int, tmp_path: Path):
    generator = np.random.default_rng(num_files)
    noise = generator.uniform(-0.5, 0.5, SIZE)
    originals = [
        _written(tmp_path / name, noise, subtype).read_bytes()
        for name, subtype in (
            ("a.flac", "PCM_16"),
            ("b.flac", "PCM_24"),
            ("c.wav", "PCM_16"),
            ("d.wav", "FLOAT"),
            ("e.ogg", "VORBIS"),
            ("f.ogg", "OPUS"),
            ("g.mp3", "MPEG_LAYER_III"),
        )
    ]
    folder = tmp_path / "mutated"
    folder.mkdir()
    for number in range(num_files):
        (folder / f"{number:05d}").write_bytes(_mutated(originals[number % len(originals)], generator))
    outcome = _read_in_a_process_with_limits(folder)
    assert len(outcome) == num_files
    errors = [text for text in outcome.values() if isinstance(text, str)]
    assert len(errors) > num_files / 3
    for name, result in outcome.items():
        if int(name) % len(originals) < 2 and isinstance(result, int):
            # FLAC: what still reads has not changed.
            samples = read_audio(folder / name, sample_rate=RATE, num_samples=SIZE)
            samples = samples * 2.0**-15 if samples.dtype == np.int16 else samples
            np.testing.assert_allclose(samples, noise, atol=2**-14)
