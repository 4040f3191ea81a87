"""The length of MP3: libsndfile estimates it from the first frame where no header tells it, and then drops what exceeds it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Kilobits a second of layer III by the field of the header, for MPEG 1 and for MPEG 2 and 2.5.
_BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LAYER_III, _MONO = 1, 3
_HAS_COUNT = 1
# Tags that players write after the audio.
_TAGS_AT_THE_END = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


class OtherEncodingError(ValueError):
    """Audio that is sound, and in an encoding that is not accepted: it can be converted."""


@dataclass(frozen=True)
class _Frame:
    start: int
    size: int
    header: bytes
    tag_at: int


def with_length(content: bytes) -> bytes:
    """The audio with a header that tells its number of frames, counted here where the file does not tell it.

    Errors: ValueError says what is wrong with the file: a frame that is missing or cut off, or another number than the file tells.

    Source: ISO/IEC 11172-3, section 2.4.1; the header of Xing, as LAME writes it.
    """
    first, *frames = _frames(content)
    told = _told(content, first)
    if told is None:
        frames = [first, *frames]
    if told not in (None, 0, len(frames), len(frames) + 1):
        raise ValueError(f"has {len(frames)} MPEG frames, but its header tells {told}")
    if not frames:
        raise ValueError("has no samples")
    if told == len(frames):
        return content
    audio = content[frames[0].start : frames[-1].start + frames[-1].size]
    if told is None and len({frame.size for frame in frames}) == 1:
        # The estimate is right where all frames have one size.
        return audio
    return _header_that_tells(frames[0], len(frames)) + audio


def audio_start(content: bytes) -> int:
    """Where the audio begins after a tag of ID3 version 2."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if content[5] & 0x10 else 0)


def is_frame(header: bytes) -> bool:
    """Whether four bytes begin a frame of MPEG audio."""
    return len(header) == 4 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0


def _frames(content: bytes) -> Iterator[_Frame]:
    start = audio_start(content)
    while start < len(content):
        if content.startswith(_TAGS_AT_THE_END, start) or not content[start:].strip(b"\0"):
            return
        frame = _frame(content[start : start + 4], start)
        if start + frame.size > len(content):
            raise ValueError("breaks off within an MPEG frame")
        yield frame
        start += frame.size


def _frame(header: bytes, start: int) -> _Frame:
    if not is_frame(header):
        raise ValueError(f"is damaged: there is no MPEG frame at byte {start}")
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if layer != _LAYER_III:
        raise OtherEncodingError("is MPEG audio of another layer than III (MP3), which is accepted")
    if version not in _RATES or rate == 3 or bit_rate in (0, 15):
        raise ValueError(f"is damaged: the MPEG frame at byte {start} has an unknown rate")
    is_first_version, is_mono = version == 3, header[3] >> 6 == _MONO
    samples_by_8 = 144 if is_first_version else 72
    size = samples_by_8 * 1000 * _BIT_RATES[is_first_version][bit_rate] // _RATES[version][rate] + padding
    side = (17 if is_mono else 32) if is_first_version else (9 if is_mono else 17)
    return _Frame(start, size, header, 4 + side)


def _told(content: bytes, frame: _Frame) -> int | None:
    """The number of frames after the first that the first one tells, 0 if it leaves it open; None if it is no header."""
    tag = content[frame.start + frame.tag_at : frame.start + min(frame.size, frame.tag_at + 12)]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 12:
        return None
    flags, count = struct.unpack(">II", tag[4:])
    return count if flags & _HAS_COUNT else 0


def _header_that_tells(like: _Frame, num_frames: int) -> bytes:
    """A silent frame with the header of Xing, large enough for it: 64 kilobits a second and no checksum."""
    version_1 = like.header[1] >> 3 & 3 == 3
    bit_rate = _BIT_RATES[version_1].index(64)
    header = bytes([0xFF, like.header[1] | 1, bit_rate << 4 | like.header[2] & 0x0C, like.header[3]])
    frame = _frame(header, 0)
    content = header + bytes(frame.tag_at - 4) + b"Xing" + struct.pack(">II", _HAS_COUNT, num_frames)
    return content + bytes(frame.size - len(content))
