"""Whether an Ogg stream is whole: libsndfile passes over pages that are damaged, and does not miss those that are cut off."""

from __future__ import annotations

import struct
import zlib

# Capture pattern, version, flags, granule position, serial number, page number, checksum, number of segments.
_PAGE = struct.Struct("<4sBBqIIIB")
_CHECKSUM = slice(22, 26)
_ENDS_THE_STREAM = 4
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_ogg(content: bytes) -> None:
    """Every page follows the one before it, carries its own checksum, and the last one ends the only stream.

    Errors: ValueError says what is wrong with the file.

    Source: RFC 3533, section 6.
    """
    start, number, stream, flags = 0, 0, None, 0
    while start < len(content):
        page = _page(content, start)
        _, _, flags, _, serial, page_number, checksum, _ = _PAGE.unpack_from(page)
        stream = serial if stream is None else stream
        if serial != stream:
            raise ValueError("holds several Ogg streams; one is accepted")
        if page_number != number or _crc(page) != checksum:
            raise ValueError(f"is damaged: Ogg page {number} is missing or does not match its checksum")
        start, number = start + len(page), number + 1
    if not flags & _ENDS_THE_STREAM:
        raise ValueError("breaks off: its last Ogg page does not end the stream")


def _page(content: bytes, start: int) -> bytes:
    if content[start : start + 4] != b"OggS":
        raise ValueError(f"is damaged: there is no Ogg page at byte {start}")
    body = start + _PAGE.size
    num_segments = content[body - 1] if body <= len(content) else 0
    end = body + num_segments + sum(content[body : body + num_segments])
    if body + num_segments > len(content) or end > len(content):
        raise ValueError("breaks off within an Ogg page")
    return content[start:end]


def _crc(page: bytes) -> int:
    """The checksum of a page whose own checksum counts as zero: CRC-32 of polynomial 0x04c11db7, unreflected, from zero.

    zlib's CRC-32 has the same polynomial with the bits of each byte, and of the result, the other way round.
    """
    without = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    reflected = zlib.crc32(without.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
