"""A tiny corpus in LibriSpeech layout whose words are tone sequences: learnable in seconds, and no speech is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
WORDS = {"YES": (500, 900), "NO": (1200, 700), "GO": (400, 2200), "STOP": (2600, 1500), "HELP": (3200, 600)}


def speak(text: str, *, seed: int = 0) -> np.ndarray:
    """Two tones a word, a little noise, pauses between words; float32 at 16 kHz."""
    generator = np.random.default_rng(seed)
    pieces = [np.zeros(800)]
    for word in text.split():
        for frequency in WORDS[word]:
            time = np.arange(int(RATE * generator.uniform(0.1, 0.16))) / RATE
            pieces.append(0.2 * np.sin(2 * np.pi * frequency * time) * np.hanning(len(time)))
        pieces.append(np.zeros(800))
    audio = np.concatenate(pieces)
    return (audio + 0.002 * generator.standard_normal(len(audio))).astype(np.float32)


def write_corpus(root: Path, parts: dict[str, int], *, seed: int = 0) -> Path:
    """``parts`` maps a part's name to its number of utterances; two speakers a part."""
    generator = np.random.default_rng(seed)
    for number, (part, size) in enumerate(parts.items()):
        for speaker in (100 + 2 * number, 101 + 2 * number):
            folder = root / part / str(speaker) / "1"
            folder.mkdir(parents=True, exist_ok=True)
            lines = []
            for index in range(size // 2):
                text = " ".join(generator.choice(list(WORDS), size=generator.integers(1, 6)))
                utterance = f"{speaker}-1-{index:04d}"
                audio = speak(text, seed=int(generator.integers(2**31)))
                soundfile.write(folder / f"{utterance}.flac", audio, RATE, subtype="PCM_16")
                lines.append(f"{utterance} {text}\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines))
    return root
