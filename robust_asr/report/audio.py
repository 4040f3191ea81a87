"""Audio within a page: small enough for a hundred players, and played by every browser."""

from __future__ import annotations

import io

import soundfile
from torch import Tensor

from robust_asr.report.markup import data_uri

# The rates of MPEG 1, 2 and 2.5.
_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})


def audio_uri(waveform: Tensor, sample_rate: int) -> str:
    """The address of an audio element: MP3, a sixth of FLAC's size; FLAC of 16 bits at a rate that MP3 does not have.

    The compression drops what nobody hears. So audible perturbations stay audible, and the exact audio of an attack is that of
    the files beside the rows.

    Shape: (T,). Samples that are not finite are played as silence.
    Errors: ValueError where soundfile was built without MP3.
    """
    samples = waveform.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1).numpy()
    encoded = io.BytesIO()
    if sample_rate not in _RATES:
        soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16")
        return data_uri("audio/flac", encoded.getvalue())
    if "MP3" not in soundfile.available_formats():
        raise ValueError(
            f"audio of a page needs a libsndfile with MP3, which begins with 1.1; found {soundfile.__libsndfile_version__}, "
            "install the soundfile of PyPI"
        )
    soundfile.write(encoded, samples, sample_rate, format="MP3", subtype="MPEG_LAYER_III")
    return data_uri("audio/mpeg", encoded.getvalue())
