"""Reading audio that a stranger may have made: of the declared rate and length, or a clear error."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from robust_asr.storage.containers import LOSSLESS, container, open_wave_size
from robust_asr.storage.mpeg import OtherEncodingError, with_length
from robust_asr.storage.ogg import check_ogg

# Libsndfile reads dozens of codecs, and its faults are in the exotic ones: it is given no others than these.
SUBTYPES = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
LOSSY_SUBTYPES = ("VORBIS", "OPUS", "MPEG_LAYER_III")
SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
# Counted in samples, not in bytes: an hour of silence is 195 KB of FLAC and 230 MB of samples.
MAX_SAMPLES = 2**25
# A file that is checked as a whole before it is decoded: lossy audio of more bytes has more samples.
_MAX_BYTES = 2**28
_FORMATS = {"WAV": ("WAV", "WAVEX"), "FLAC": ("FLAC",), "OGG": ("OGG",), "MP3": ("MP3",)}
# What libsndfile answers for FLAC that was written to a pipe: its header was never completed.
_UNKNOWN_LENGTH = 2**63 - 1
_BLOCK = 2**16


@dataclass(frozen=True)
class Header:
    """What an audio file is. Units: sample_rate in hertz, num_samples of one channel."""

    sample_rate: int
    channels: int
    num_samples: int
    subtype: str

    @property
    def is_lossy(self) -> bool:
        return self.subtype in LOSSY_SUBTYPES


def read_audio(source: Path | bytes, *, sample_rate: int, num_samples: int, lossy: bool = False) -> np.ndarray:
    """Samples of a mono WAV or FLAC file whose header must agree with the declaration, or not know its length.

    A FLAC file is checked against the MD5 of its samples that its header carries and an Ogg file against the checksums of its
    pages, so damage is an error, not noise.

    Args:
        lossy: Ogg Vorbis, Opus and MP3 are accepted too.

    Shape: (num_samples,) int16 where the file holds 16 bits or is lossy, else float32 in [-1, 1]. What lossy codecs decode beyond
    full scale is clipped, as players do.
    Errors: ValueError says what is wrong; the caller names the file.
    """
    with _opened(source, lossy=lossy) as file:
        header = _header(file)
        _check_mono(header)
        _agree(header, sample_rate=sample_rate, num_samples=num_samples)
        samples = _decode(file, header, at_most=num_samples)
    if len(samples) > num_samples:
        raise ValueError(f"goes on after the {num_samples} samples that are declared")
    if len(samples) != num_samples:
        raise ValueError(f"breaks off after {len(samples)} of {num_samples} samples")
    _check_md5(source, samples, header)
    return _in_range(samples, header)


def measured(source: Path | bytes, *, lossy: bool = False) -> tuple[Header, np.ndarray]:
    """The header and the samples of a mono file of which nothing is declared, as ``read_audio`` reads it.

    ``num_samples`` is what was decoded. Where the header knows another number, that is an error.
    """
    with _opened(source, lossy=lossy) as file:
        header = _header(file)
        _check_mono(header)
        header, samples = _whole(file, header)
    _check_md5(source, samples, header)
    return header, _in_range(samples, header)


def read_sound(source: Path) -> tuple[Header, np.ndarray]:
    """Like ``measured`` for sound of any number of channels and at any level, lossy or not. Shape: (T, C) float32."""
    with _opened(source, lossy=True) as file:
        header, samples = _whole(file, _header(file))
    _check_md5(source, samples, header)
    return header, as_float(samples).reshape(len(samples), -1)


def _opened(source: Path | bytes, *, lossy: bool) -> soundfile.SoundFile:
    if isinstance(source, bytes):
        return _sound_file(source, _whole_content(source, lossy=lossy))
    try:
        # Before it is opened: opening a pipe would wait for a writer.
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise ValueError("is not a regular file")
        return _sound_file(source, _content(source, lossy=lossy))
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from error


def _content(path: Path, *, lossy: bool) -> tuple[str, bytes | None]:
    """The container, and the content where the decoder must be given another one than the file's or one that was checked."""
    with open(path, "rb") as raw:
        kind = container(raw, lossy=lossy)
        if kind == "FLAC" or (kind == "WAV" and open_wave_size(raw) is None):
            return kind, None
        if os.fstat(raw.fileno()).st_size > _MAX_BYTES:
            raise ValueError(f"is larger than {_MAX_BYTES} bytes")
        raw.seek(0)
        return _whole_content(raw.read(), lossy=lossy)


def _whole_content(content: bytes, *, lossy: bool) -> tuple[str, bytes]:
    kind = container(io.BytesIO(content), lossy=lossy)
    if kind == "OGG":
        check_ogg(content)
    elif kind == "MP3":
        content = with_length(content)
    elif kind == "WAV" and (place := open_wave_size(io.BytesIO(content))) is not None:
        content = content[:place] + struct.pack("<I", len(content) - place - 4) + content[place + 4 :]
    return kind, content


def _sound_file(source: Path | bytes, found: tuple[str, bytes | None]) -> soundfile.SoundFile:
    kind, content = found
    try:
        file = soundfile.SoundFile(str(source) if content is None else io.BytesIO(content))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be opened as audio ({_reason(error)})") from error
    if file.format not in _FORMATS[kind] or file.subtype not in (SUBTYPES if kind in LOSSLESS else LOSSY_SUBTYPES):
        found_format = f"{file.format} {file.subtype}"
        file.close()
        raise OtherEncodingError(
            f"holds {found_format}; PCM or float in WAV and FLAC, Vorbis, Opus and MP3 are accepted"
        )
    return file


def _reason(error: soundfile.LibsndfileError) -> str:
    """libsndfile's own words without those of soundfile, which name a place in memory."""
    return str(error.error_string).rstrip(".")


def _header(file: soundfile.SoundFile) -> Header:
    # An Ogg file may begin in the middle of its stream: the number in its last page is not its length then.
    num_samples = _UNKNOWN_LENGTH if file.format == "OGG" else file.frames
    return Header(file.samplerate, file.channels, num_samples, file.subtype)


def _check_mono(header: Header) -> None:
    if header.channels != 1:
        raise OtherEncodingError(f"has {header.channels} channels; mono is accepted")


def _check_size(num_samples: int) -> None:
    if not 0 < num_samples <= MAX_SAMPLES:
        raise ValueError(f"has {num_samples} samples; 1 to {MAX_SAMPLES} are accepted")


def _agree(header: Header, *, sample_rate: int, num_samples: int) -> None:
    if header.sample_rate != sample_rate:
        raise ValueError(f"has sampling_rate {header.sample_rate}, but {sample_rate} is declared")
    if header.num_samples not in (num_samples, _UNKNOWN_LENGTH):
        raise ValueError(f"has num_samples {header.num_samples}, but {num_samples} is declared")
    _check_size(num_samples)


def _whole(file: soundfile.SoundFile, header: Header) -> tuple[Header, np.ndarray]:
    known = None if header.num_samples == _UNKNOWN_LENGTH else header.num_samples
    if known:
        _check_size(known * header.channels)
    samples = _decode(file, header, at_most=MAX_SAMPLES // header.channels)
    if known not in (None, len(samples)):
        raise ValueError(f"breaks off after {len(samples)} of {known} samples")
    if not len(samples):
        raise ValueError("has no samples")
    _check_size(samples.size)
    return replace(header, num_samples=len(samples)), samples


def _decode(file: soundfile.SoundFile, header: Header, *, at_most: int) -> np.ndarray:
    """The samples, up to one more than ``at_most`` where the header does not know their number. Shape: (T,) or (T, C)."""
    kinds = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32", "DOUBLE": "float64"}
    # libsndfile's own 16 bits of Vorbis and Opus turn a sample beyond full scale into one of the other sign.
    kind = "float32" if header.is_lossy else kinds.get(header.subtype, "int32")
    try:
        if header.num_samples != _UNKNOWN_LENGTH:
            return file.read(dtype=kind)
        return _decode_to_the_end(file, kind, at_most + 1)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded ({_reason(error)})") from error


def _decode_to_the_end(file: soundfile.SoundFile, kind: str, most: int) -> np.ndarray:
    _do_not_seek(file)
    blocks, count = [], 0
    while count < most and len(block := file.read(frames=min(_BLOCK, most - count), dtype=kind)):
        blocks.append(block)
        count += len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, kind)


def _do_not_seek(file: soundfile.SoundFile) -> None:
    # soundfile seeks to the end of what it has read, which fails at the end of a stream of unknown length.
    file.seekable = lambda: False


def _check_md5(source: Path | bytes, samples: np.ndarray, header: Header) -> None:
    if isinstance(source, bytes):
        start = source[:42]
    else:
        with open(source, "rb") as raw:
            start = raw.read(42)
    declared = start[26:42]
    if start[:4] != b"fLaC" or header.subtype not in ("PCM_16", "PCM_24") or not any(declared):
        return
    raw_samples = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("<")).view(np.uint8)
    if header.subtype == "PCM_24":
        # Libsndfile puts 24 bits into the upper three bytes of an int32.
        raw_samples = np.ascontiguousarray(raw_samples.reshape(-1, 4)[:, 1:])
    if hashlib.md5(raw_samples, usedforsecurity=False).digest() != declared:
        raise ValueError("holds samples that do not match the MD5 in its header: it is damaged")


def _in_range(samples: np.ndarray, header: Header) -> np.ndarray:
    if samples.dtype == np.int16:
        return samples
    if samples.dtype == np.int32:
        return as_float(samples)
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not finite")
    if header.is_lossy:
        return np.rint(samples * 2.0**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    if (peak := float(np.abs(samples).max())) > 1.0:
        raise ValueError(f"holds samples up to {peak:.6g}; the accepted range is [-1, 1]")
    return samples.astype(np.float32)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Integer samples of 16 bits, or of 32, as float32 in [-1, 1]; others as they are."""
    scale = {"int16": 2.0**-15, "int32": 2.0**-31}.get(samples.dtype.name, 1.0)
    return (samples * np.float64(scale)).astype(np.float32)
