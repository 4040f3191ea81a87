"""The pronunciation of words that are not in the lexicon, by espeak-ng's letter-to-sound rules for American English.

Run as a program, this module reads words from its standard input and writes their phonemes, one line for each word. It runs in
a process of its own because phoneme requests change the speech that espeak-ng synthesises later in the same process.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence

# In seconds. A word takes a tenth of a millisecond, so the limit is reached only if espeak-ng hangs.
_TIMEOUT = 600
# espeak-ng's phonetic symbols (IPA) for American English and their ARPAbet phones. Longer symbols are tried first.
_ARPABET = {
    "ɑː": "AA", "ɑ": "AA", "ɒ": "AA", "æ": "AE", "a": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH",
    "ɔː": "AO", "ɔ": "AO", "oː": "AO", "aʊ": "AW", "aɪ": "AY", "ɛ": "EH", "e": "EH", "ɚ": "ER", "ɚɹ": "ER", "ɜː": "ER", "ɜːɹ": "ER",
    "eɪ": "EY", "ɪ": "IH", "ᵻ": "IH", "iː": "IY", "i": "IY", "oʊ": "OW", "o": "OW", "ɔɪ": "OY", "ʊ": "UH",
    "uː": "UW", "u": "UW", "b": "B", "tʃ": "CH", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "h": "HH", "dʒ": "JH",
    "k": "K", "x": "K", "l": "L", "ɬ": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH",
    "t": "T", "ɾ": "T", "ʔ": "T", "θ": "TH", "v": "V", "w": "W", "j": "Y", "z": "Z", "ʒ": "ZH",
}  # fmt: skip
_STRESS = {"ˈ": "1", "ˌ": "2"}


def phonemes(words: Sequence[str]) -> list[str]:
    """The phonetic transcription (IPA) of each word. RuntimeError if espeak-ng does not run."""
    command = [sys.executable, __file__]
    result = subprocess.run(
        command, input="\n".join(words), capture_output=True, text=True, encoding="utf-8", timeout=_TIMEOUT, check=False
    )
    lines = result.stdout.split("\n")[:-1]
    if result.returncode or len(lines) != len(words):
        raise RuntimeError(f"espeak-ng failed to give pronunciations: {result.stderr.strip()[-300:]}")
    return lines


def arpabet(transcription: str) -> list[str]:
    """Convert a transcription to ARPAbet with stress: ``HH AH0 L OW1``. ValueError names a symbol without an ARPAbet phone."""
    phones, stress = [], "0"
    # ARPAbet has no syllabic consonants: they are written as a short vowel and the consonant.
    rest = transcription.replace("n\u0329", "ən").replace("l\u0329", "əl")
    while rest:
        if rest[0] in _STRESS:
            rest, stress = rest[1:], _STRESS[rest[0]]
            continue
        symbol = next((rest[:size] for size in (3, 2, 1) if rest[:size] in _ARPABET), None)
        if symbol is None:
            raise ValueError(f"the phonetic symbol {rest[0]!r} in {transcription!r} is not one of American English")
        phone, rest = _ARPABET[symbol], rest[len(symbol) :]
        if phone[0] in "AEIOU":
            phone, stress = phone + stress, "0"
        phones.append(phone)
    return phones


def main() -> None:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
    retrieval, utf8, ipa = 1, 1, 2
    if library.espeak_Initialize(retrieval, 0, str(espeakng_loader.get_data_path()).encode(), 0) < 0:
        raise SystemExit("espeak-ng does not start")
    if library.espeak_SetVoiceByName(b"en-us") != 0:
        raise SystemExit("espeak-ng has no voice en-us")
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    for word in sys.stdin.read().split("\n"):
        text = ctypes.c_char_p(word.strip().lower().encode())
        print((library.espeak_TextToPhonemes(ctypes.byref(text), utf8, ipa) or b"").decode().strip())


if __name__ == "__main__":
    main()
