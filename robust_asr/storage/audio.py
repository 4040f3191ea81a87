"""Reading audio that a stranger may have made: mono WAV or FLAC of the declared rate and length, or a clear error."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

# Libsndfile reads dozens of codecs, and its faults are in the exotic ones: it is given no others than these.
SUBTYPES = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
# Counted in samples, not in bytes: an hour of silence is 195 KB of FLAC and 230 MB of samples.
MAX_SAMPLES = 2**25
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# What libsndfile answers for FLAC that was written to a pipe: its header was never completed.
_UNKNOWN_LENGTH = 2**63 - 1
_BLOCK = 2**16


@dataclass(frozen=True)
class Header:
    """What an audio file says about itself; ``is_counted`` if it does not say its length. Units: sample_rate in hertz."""

    sample_rate: int
    channels: int
    num_samples: int
    subtype: str
    is_counted: bool = False


def read_header(source: Path | bytes) -> Header:
    """The header; where it does not know the length, the samples are decoded and counted.

    Errors: ValueError says why the file is not readable as WAV or FLAC.
    """
    with _opened(source) as file:
        header = _header(file)
        if header.num_samples == _UNKNOWN_LENGTH:
            return replace(header, num_samples=_counted(file), is_counted=True)
        return header


def read_audio(source: Path | bytes, *, sample_rate: int, num_samples: int) -> np.ndarray:
    """Samples of a mono WAV or FLAC file whose header must agree with the declaration, or not know its length.

    A FLAC file is checked against the MD5 of its samples that its header carries, so damage is an error, not noise.

    Shape: (num_samples,) int16 where the file holds 16 bits, else float32 in [-1, 1].
    Errors: ValueError says what is wrong; the caller names the file.
    """
    with _opened(source) as file:
        header = _header(file)
        _agree(header, sample_rate=sample_rate, num_samples=num_samples)
        samples = _decode(file, header, num_samples)
    if isinstance(source, bytes):
        _check_md5(source[:42], samples, header)
    else:
        with open(source, "rb") as raw:
            _check_md5(raw.read(42), samples, header)
    return _in_range(samples)


def _opened(source: Path | bytes) -> soundfile.SoundFile:
    if isinstance(source, bytes):
        raw: BinaryIO = io.BytesIO(source)
        _check_container(raw)
        return _sound_file(io.BytesIO(source))
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise ValueError("is not a regular file")
        with open(source, "rb") as raw:
            _check_container(raw)
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from error
    return _sound_file(str(source))


def _sound_file(source: str | io.BytesIO) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be opened as audio ({error})") from error


def _check_container(raw: BinaryIO) -> None:
    magic = raw.read(4)
    if not magic:
        raise ValueError("is an empty file")
    if magic == b"fLaC":
        return
    if magic != b"RIFF" or raw.read(8)[4:] != b"WAVE":
        raise ValueError("is neither FLAC nor WAV by its first bytes")
    while len(chunk := raw.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"fmt ":
            _check_wave_format(raw.read(min(size, 40)))
            return
        raw.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("is a WAV file without a format chunk")


def _check_wave_format(fields: bytes) -> None:
    if len(fields) < 16:
        raise ValueError("is a WAV file with a truncated format chunk")
    (code,) = struct.unpack_from("<H", fields)
    if code == _EXTENSIBLE and len(fields) >= 26:
        (code,) = struct.unpack_from("<H", fields, 24)
    if code not in (_PCM, _FLOAT):
        raise ValueError(f"is a WAV file of codec {code:#06x}; PCM and float are accepted")


def _header(file: soundfile.SoundFile) -> Header:
    if file.format not in ("WAV", "WAVEX", "FLAC") or file.subtype not in SUBTYPES:
        raise ValueError(f"holds {file.format} {file.subtype}; WAV and FLAC with PCM or float samples are accepted")
    return Header(file.samplerate, file.channels, file.frames, file.subtype)


def _agree(header: Header, *, sample_rate: int, num_samples: int) -> None:
    if header.channels != 1:
        raise ValueError(f"has {header.channels} channels; mono is accepted")
    if header.sample_rate != sample_rate:
        raise ValueError(f"has sampling_rate {header.sample_rate}, but {sample_rate} is declared")
    if header.num_samples not in (num_samples, _UNKNOWN_LENGTH):
        raise ValueError(f"has num_samples {header.num_samples}, but {num_samples} is declared")
    if not 0 < num_samples <= MAX_SAMPLES:
        raise ValueError(f"has {num_samples} samples; 1 to {MAX_SAMPLES} are accepted")


def _decode(file: soundfile.SoundFile, header: Header, num_samples: int) -> np.ndarray:
    kind = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32", "DOUBLE": "float64"}.get(header.subtype, "int32")
    unknown = header.num_samples == _UNKNOWN_LENGTH
    if unknown:
        _do_not_seek(file)
    try:
        samples = file.read(frames=num_samples + 1 if unknown else -1, dtype=kind)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    if len(samples) > num_samples:
        raise ValueError(f"goes on after the {num_samples} samples that are declared")
    if len(samples) != num_samples:
        raise ValueError(f"breaks off after {len(samples)} of {num_samples} samples")
    return samples


def _counted(file: soundfile.SoundFile) -> int:
    """Samples of a channel; more than ``MAX_SAMPLES`` are not counted to their end."""
    _do_not_seek(file)
    count = 0
    try:
        while count <= MAX_SAMPLES and (size := len(file.read(frames=_BLOCK, dtype="int16"))):
            count += size
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    return count


def _do_not_seek(file: soundfile.SoundFile) -> None:
    # soundfile seeks to the end of what it has read, which fails at the end of a stream of unknown length.
    file.seekable = lambda: False


def _check_md5(start: bytes, samples: np.ndarray, header: Header) -> None:
    declared = start[26:42]
    if start[:4] != b"fLaC" or header.subtype not in ("PCM_16", "PCM_24") or not any(declared):
        return
    raw = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).view(np.uint8)
    if header.subtype == "PCM_24":
        # Libsndfile puts 24 bits into the upper three bytes of an int32.
        raw = np.ascontiguousarray(raw.reshape(-1, 4)[:, 1:])
    if hashlib.md5(raw, usedforsecurity=False).digest() != declared:
        raise ValueError("holds samples that do not match the MD5 in its header: it is damaged")


def _in_range(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.int16:
        return samples
    if samples.dtype == np.int32:
        return (samples * np.float64(2.0**-31)).astype(np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not finite")
    if (peak := float(np.abs(samples).max())) > 1.0:
        raise ValueError(f"holds samples up to {peak:.6g}; the accepted range is [-1, 1]")
    return samples.astype(np.float32)
