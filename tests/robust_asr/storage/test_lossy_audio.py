"""Ogg Vorbis, Opus and MP3: as many samples as were encoded, damage named, and nobody reads them who asks for WAV and FLAC."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robust_asr.storage.audio import Header, measured, read_audio, read_sound
from robust_asr.storage.mpeg import with_length

CODECS = {"VORBIS": "OGG", "OPUS": "OGG", "MPEG_LAYER_III": "MP3"}
SIZE = 12_345


def encoded(samples: np.ndarray, subtype: str, rate: int = 16_000, **settings) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=CODECS[subtype], subtype=subtype, **settings)
    return content.getvalue()


def tone(size: int = SIZE, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 400 * np.arange(size) / rate)


def without_first_frame(content: bytes) -> bytes:
    """MP3 as an encoder leaves it that wrote to a pipe: no frame tells the length."""
    second = content.index(content[:2], 4)
    assert b"Xing" in content[:second] or b"Info" in content[:second]
    return content[second:]


@pytest.mark.parametrize("subtype", CODECS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_the_samples_are_those_that_were_encoded(subtype: str, rate: int, tmp_path: Path):
    path = tmp_path / "a.flac"
    path.write_bytes(encoded(tone(rate=rate), subtype, rate))
    for source in (path, path.read_bytes()):
        header, samples = measured(source, lossy=True)
        assert header == Header(rate, 1, SIZE, subtype) and header.is_lossy
        assert samples.dtype == np.int16
        assert np.abs(samples * 2.0**-15 - tone(rate=rate))[500:-500].max() < 0.1
        np.testing.assert_array_equal(
            samples, read_audio(source, sample_rate=rate, num_samples=SIZE, lossy=True), strict=True
        )
        for declared in (SIZE - 1, SIZE + 1):
            with pytest.raises(ValueError, match=r"goes on after|breaks off|but \d+ is declared"):
                read_audio(source, sample_rate=rate, num_samples=declared, lossy=True)


@pytest.mark.parametrize("subtype", CODECS)
def test_where_wave_and_flac_are_asked_for_no_other_decoder_runs(subtype: str):
    with pytest.raises(ValueError, match="is neither FLAC nor WAV"):
        measured(encoded(tone(), subtype))
    with pytest.raises(ValueError, match="is neither FLAC nor WAV"):
        read_audio(encoded(tone(), subtype), sample_rate=16_000, num_samples=SIZE)


@pytest.mark.parametrize("subtype", CODECS)
def test_what_exceeds_full_scale_is_clipped_and_keeps_its_sign(subtype: str):
    square = 0.999 * np.sign(tone())
    content = encoded(square, subtype)
    decoded = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    assert np.abs(decoded).max() > 1.2
    samples = measured(content, lossy=True)[1] * 2.0**-15
    np.testing.assert_allclose(samples, decoded.clip(-1, 1), atol=2**-15)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_is_whole_or_an_error(subtype: str):
    content = encoded(tone(), subtype)
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(ValueError, match=r"damaged|neither|Ogg|breaks off"):
            measured(bytes(damaged), lossy=True)
    last_page = content.rindex(b"OggS")
    for other, message in {
        content[:-10]: "breaks off within an Ogg page",
        content[:last_page]: "breaks off: its last Ogg page does not end the stream",
        content + content: r"several Ogg streams|is missing or does not match",
        content + b"TAG": "there is no Ogg page at byte",
    }.items():
        with pytest.raises(ValueError, match=message):
            measured(other, lossy=True)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"ID3\4\0\0\0\0\1\0" + bytes(128), b"TAG" + bytes(125))])
def test_mp3_that_does_not_tell_its_length_is_counted_frame_by_frame(rate, mode, before, after):
    speech = np.random.default_rng(0).normal(0, 0.1, 3 * SIZE) * (np.arange(3 * SIZE) % 8000 > 4000)
    content = encoded(speech, "MPEG_LAYER_III", rate, bitrate_mode=mode, compression_level=0.5)
    header, samples = measured(before + without_first_frame(content) + after, lossy=True)
    # Encoders add their delay and fill up the last frame; nothing of the speech is lost.
    assert 0 <= header.num_samples - len(speech) < 3 * 1152
    told = measured(content, lossy=True)[1]
    assert len(told) == len(speech)
    delay = np.argmax(np.correlate(samples.astype(float), told[:20_000].astype(float), "valid"))
    assert np.abs(samples[delay:][5_000:15_000] - told[5_000:15_000].astype(float)).max() < 100


def test_mp3_of_which_frames_are_missing_is_an_error():
    content = encoded(tone(), "MPEG_LAYER_III")
    middle = len(content) // 2
    for other, message in {
        content[:middle]: "breaks off within an MPEG frame",
        content + without_first_frame(content): r"has \d+ MPEG frames, but its header tells \d+",
        content[:middle] + bytes(300) + content[middle + 300 :]: "there is no MPEG frame at byte",
        content[:1] + bytes([content[1] & 0xF9 | 4]) + content[2:]: "another layer than III",
        b"\xff\xfb" + bytes(2): "unknown rate",
    }.items():
        with pytest.raises(ValueError, match=message):
            measured(other, lossy=True)
    assert with_length(content) == content == with_length(content + bytes(100))[: len(content)]


def test_a_tag_before_another_format_opens_no_other_decoder():
    flac = io.BytesIO()
    soundfile.write(flac, tone(), 16_000, format="FLAC")
    for hidden in (flac.getvalue(), b"FORM" + bytes(100), b""):
        with pytest.raises(ValueError, match="is neither FLAC, WAV, Ogg nor MP3"):
            measured(b"ID3\4\0\0\0\0\1\0" + bytes(128) + hidden, lossy=True)


def test_sound_has_any_channels_and_level(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([4 * tone(), tone()], 1), 44_100, subtype="FLOAT")
    header, samples = read_sound(path)
    assert (header.channels, samples.shape) == (2, (SIZE, 2))
    assert float(samples.max()) == pytest.approx(2.0, abs=1e-3)
