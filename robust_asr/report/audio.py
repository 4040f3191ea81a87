"""Audio within a page, as the address of a player."""

from __future__ import annotations

import io

import soundfile
from torch import Tensor

from robust_asr.report.markup import data_uri

# The rates of MPEG 1, 2 and 2.5.
_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})


def compressed_uri(waveform: Tensor, sample_rate: int) -> str:
    """MP3, which every browser plays, at about a fifth of the size of FLAC; FLAC at a rate that MP3 does not have.

    The compression drops what nobody hears. So audible perturbations stay audible, and the exact audio of an attack is that of
    the files beside the rows.

    Shape: (T,). Samples that are not finite are played as silence.
    Errors: ValueError where libsndfile was built without MP3.
    """
    if sample_rate not in _RATES:
        return flac_uri(waveform, sample_rate)
    if "MP3" not in soundfile.available_formats():
        version = soundfile.__libsndfile_version__
        raise ValueError(
            f"libsndfile must have MP3 for the audio of a page, found version {version} without it; the soundfile package of PyPI "
            "brings one that has it"
        )
    return data_uri("audio/mpeg", _encoded(waveform, sample_rate, "MP3", "MPEG_LAYER_III"))


def flac_uri(waveform: Tensor, sample_rate: int) -> str:
    """FLAC of 16 bits, for a page of a few samples. Shape: (T,). Samples that are not finite are played as silence."""
    return data_uri("audio/flac", _encoded(waveform, sample_rate, "FLAC", "PCM_16"))


def _encoded(waveform: Tensor, sample_rate: int, container: str, subtype: str) -> bytes:
    content = io.BytesIO()
    samples = waveform.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1).numpy()
    soundfile.write(content, samples, sample_rate, format=container, subtype=subtype)
    return content.getvalue()
