"""espeak-ng through ctypes.

Two utterances in one process are not independent: the synthesiser keeps phases and random state, and no call resets
them. Speech is reproducible only from the first word of a fresh process on, so a process may load the library once
(``Espeak``).
"""

from __future__ import annotations

import ctypes
import os
from typing import ClassVar

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22_050
# Synchronous mode is eight times as fast as the mode with a thread of its own.
_SYNCHRONOUS, _UTF8, _PHONEMES = 2, 1, 0x100
_RATE, _PITCH, _RANGE = 1, 3, 4


class Espeak:
    """Speaks into an array. Errors: RuntimeError where the library does not load or was loaded before in this process."""

    _loaded_by: ClassVar[int | None] = None

    def __init__(self) -> None:
        if Espeak._loaded_by is not None:
            raise RuntimeError("espeak-ng was loaded before; its speech is reproducible only from a fresh process on")
        Espeak._loaded_by = os.getpid()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
        if (rate := self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)) != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng starts with {rate} instead of {SAMPLE_RATE} hertz")
        self._chunks: list[np.ndarray] = []
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        # Kept in an attribute: ctypes frees a callback that nothing refers to.
        self._callback = signature(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, *, voice: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Shape: (T,) int16 at 22,050 hertz. Units: rate in words a minute; pitch and pitch_range from 0 to 100."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _UTF8 | _PHONEMES, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            raise RuntimeError(f"espeak-ng said nothing for {text!r}")
        return np.concatenate(self._chunks)

    def _receive(self, samples: ctypes._Pointer, num_samples: int, events: int | None) -> int:
        if samples and num_samples > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0
