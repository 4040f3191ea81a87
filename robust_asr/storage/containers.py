"""What an audio file is by its first bytes: only the formats that are accepted ever reach a decoder."""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

from robust_asr.storage.mpeg import OtherEncodingError, audio_start, is_frame

LOSSLESS, LOSSY = ("FLAC", "WAV"), ("OGG", "MP3")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Bytes of samples from which a header is one that a writer left open: sox, arecord and ffmpeg write such numbers into a pipe.
_OPEN_SIZE = 0x7FFF_0000


def container(raw: BinaryIO, *, lossy: bool) -> str:
    """``FLAC``, ``WAV`` or, if ``lossy`` is true, ``OGG`` or ``MP3``. Reads from the beginning of a file.

    Errors: ValueError says what the file is instead, or what its header lacks.
    """
    magic = raw.read(12)
    if not magic:
        raise ValueError("is an empty file")
    if magic[:4] == b"fLaC":
        return "FLAC"
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        return "WAV"
    if not lossy:
        raise ValueError("is neither FLAC nor WAV by its first bytes")
    if magic[:4] == b"OggS":
        return "OGG"
    raw.seek(audio_start(magic))
    if is_frame(raw.read(4)):
        return "MP3"
    raise ValueError("is neither FLAC, WAV, Ogg nor MP3 by its first bytes")


def open_wave_size(raw: BinaryIO) -> int | None:
    """Where a WAV file has its number of bytes of samples if that is 0 although samples follow; else None.

    Such a header was written before the samples, and never completed. libsndfile knows what the larger numbers mean that other
    writers leave.

    Errors: ValueError if the samples are of another codec than PCM and float, or fewer than the header declares.
    """
    end = raw.seek(0, os.SEEK_END)
    raw.seek(4)
    (declared_end,) = struct.unpack("<I", raw.read(4))
    raw.seek(12)
    has_format = False
    while len(chunk := raw.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        following = end - raw.tell()
        if name == b"fmt ":
            _check_format(raw.read(min(size, 40)))
            has_format = True
            raw.seek(size + size % 2 - min(size, 40), io.SEEK_CUR)
        elif name == b"data" and has_format:
            if following < size < _OPEN_SIZE:
                raise ValueError(f"breaks off: its header declares {size} bytes of samples, {following} are there")
            is_open = size == 0 and following > 0 and declared_end + 8 != end
            return raw.tell() - 4 if is_open else None
        else:
            raw.seek(size + size % 2, io.SEEK_CUR)
    if not has_format:
        raise ValueError("is a WAV file without a format chunk")
    return None


def _check_format(fields: bytes) -> None:
    if len(fields) < 16:
        raise ValueError("is a WAV file with a truncated format chunk")
    (code,) = struct.unpack_from("<H", fields)
    if code == _EXTENSIBLE and len(fields) >= 26:
        (code,) = struct.unpack_from("<H", fields, 24)
    if code not in (_PCM, _FLOAT):
        raise OtherEncodingError(f"is a WAV file of codec {code:#06x}; PCM and float are accepted")
