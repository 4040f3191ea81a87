"""An evaluation made up for the tests of the report: plausible numbers, tones for audio.

``python -m tests.robust_asr.report.example OUT`` writes it to a folder, to look at.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from robust_asr.metrics import count_errors, word_edits
from robust_asr.results import audio_path, write_description

RATE = 16000
WORDS = (
    "the of and to in he was that it his had with as for her is at on not be they you him all she which one we from them an "
    "were their little have so no been if when would who could more very like out will into man said time up house old before "
    "there great over only what some than your morning village river window letter captain silence journey garden answer"
).split()

# Name -> columns, and the share of words in error and of transcripts that are empty under each condition.
SYSTEMS = {
    "baseline": ("none", "", [0.08, 0.17, 0.46, 0.11, 0.62, 1.6], 0.0),
    "RS 0.01": ("randomized smoothing", 0.01, [0.12, 0.14, 0.22, 0.13, 0.41, 1.1], 0.3),
    "RS 0.01 + denoiser": ("randomized smoothing, denoiser", 0.01, [0.13, 0.14, 0.19, 0.13, 0.24, 0.8], 0.01),
}
CONDITIONS = {
    "clean": {"attack": "none", "norm": "", "strength": "", "strength_unit": "", "knowledge": ""},
    **{
        f"noise-{sigma}": {
            "attack": "gaussian noise (no attack)",
            "norm": "",
            "strength": sigma,
            "strength_unit": "std (audio in [-1,1])",
            "knowledge": "",
        }
        for sigma in (0.01, 0.02)
    },
    **{
        f"pgd7-{eps:g}": {
            "attack": "PGD-7 targeted",
            "norm": "Linf",
            "strength": eps,
            "strength_unit": "amplitude",
            "knowledge": "exact",
        }
        for eps in (1e-4, 1e-3, 1e-2)
    },
    "pgd7-0.01-unaware": {
        "attack": "PGD-7 targeted",
        "norm": "Linf",
        "strength": 1e-2,
        "strength_unit": "amplitude",
        "knowledge": "unaware",
    },
}
CHECKS = [
    {"name": "noise of the same size does less than the attack", "verdict": "pass", "condition": "pgd7-0.01"},
    {"name": "more steps do not help", "verdict": "pass", "system": "baseline", "condition": "pgd7-0.01", "value": 0.4},
    {
        "name": "gradient reaches the waveform",
        "verdict": "fail",
        "system": "RS 0.01 + denoiser",
        "condition": "pgd7-0.001",
        "value": 0.0,
        "detail": "the gradient of 12 of 130 utterances is zero: the defence may hide it",
    },
    {"name": "transfer from another system", "verdict": "not run", "detail": "needs a second surrogate"},
]


def write_example(
    folder: Path,
    *,
    systems: dict[str, tuple[str, Any, list[float], float]] | None = None,
    conditions: dict[str, dict[str, Any]] | None = None,
    num_utterances: int = 130,
    rows: float = 1.0,
    keep_audio: int = 3,
    max_seconds: float = 4.0,
    checks: list[dict[str, Any]] | None = None,
    seed: int = 0,
) -> Path:
    """A run folder; ``rows`` is the share that is there, in the order in which an evaluation works."""
    systems = SYSTEMS if systems is None else systems
    conditions = CONDITIONS if conditions is None else conditions
    folder.mkdir(parents=True, exist_ok=True)
    write_description(folder, description(systems, conditions, num_utterances, seed))
    made = list(_rows(systems, conditions, num_utterances, seed))
    made = made[: round(rows * len(made))]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    if checks is not None:
        (folder / "checks.json").write_text(json.dumps(checks))
    _write_audio(folder, made, keep_audio, max_seconds)
    return folder


def description(systems: dict, conditions: dict, num_utterances: int, seed: int) -> dict[str, Any]:
    about = {
        name: {
            "hash": f"{position + 1:016x}",
            "columns": {"model": "DeepSpeech2", "defense": defense, "sigma": sigma},
            "description": {
                "weights": f"{position + 9:016x}",
                "recognizer": {"class_path": "robust_asr.models.DeepSpeech2"},
            },
        }
        for position, (name, (defense, sigma, *_)) in enumerate(systems.items())
    }
    attacks = {
        name: {"hash": f"{len(name):08x}{seed:08x}", "columns": columns, "description": {"steps": 7}}
        for name, columns in conditions.items()
    }
    parts = {"test-clean": {"num_utterances": num_utterances}}
    return {"seed": seed, "systems": about, "conditions": attacks, "parts": parts}


def row(
    system: str, condition: str, part: str, utterance: str, reference: str, hypothesis: str, **more: Any
) -> dict[str, Any]:
    """A row of an evaluation; ``more`` overrides."""
    count = count_errors([reference], [hypothesis])
    return {
        "system": system,
        "condition": condition,
        "part": part,
        "id": utterance,
        "reference": reference,
        "hypothesis": hypothesis,
        "words": count["reference_words"],
        **{name: count[name] for name in ("insertions", "deletions", "substitutions", "character_errors")},
        "characters": count["reference_characters"],
        "audio_seconds": 2.0,
        "seconds": 0.01,
        "iterations": 0,
        "forwards": 0,
        "loss": None,
        "success": True,
        "target": None,
        "snr_db": None,
        "size": 0.0,
        "note": "",
        "status": "attacked",
        "hashes": {"system": "s", "condition": "c", "data": utterance},
    } | more


def _rows(systems: dict, conditions: dict, num_utterances: int, seed: int):
    for index in range(num_utterances):
        chance = random.Random(f"{seed} {index}")
        words = [chance.choice(WORDS).upper() for _ in range(chance.randint(4, 24))]
        difficulty = chance.gammavariate(2.0, 0.5)
        for place, (condition, columns) in enumerate(conditions.items()):
            for system, (_, _, rates, empty) in systems.items():
                draw = random.Random(f"{seed} {index} {system}")
                rate = rates[min(place, len(rates) - 1)] * (0.5 if columns["knowledge"] == "unaware" else 1)
                hypothesis = _heard(draw, words, rate * (0.4 + 0.6 * difficulty))
                if rate > 0.5 and draw.random() < empty:
                    hypothesis = []
                yield _row(draw, system, condition, columns, f"1089-134686-{index:04d}", words, hypothesis)


def _row(draw, system, condition, columns, utterance, words, hypothesis) -> dict[str, Any]:
    target = "OPEN THE FRONT DOOR NOW" if "targeted" in columns["attack"] else None
    reference, heard = " ".join(words), " ".join(hypothesis)
    found = {}
    if target:
        count = count_errors([target], [heard])
        errors = word_edits(count)
        found = {"target": target, "target_errors": errors, "target_words": 5, "success": heard == target}
    strength = columns["strength"]
    attacked = bool(columns["knowledge"])
    return row(
        system,
        condition,
        "test-clean",
        utterance,
        reference,
        heard,
        **found,
        snr_db=_snr_db(columns, draw),
        size=strength if isinstance(strength, float) else 0.0,
        iterations=7 if attacked else 0,
        forwards=(56 if "RS" in system else 7) if attacked else 0,
        audio_seconds=round(len(words) * 0.38, 3),
        seconds=round(len(words) * 0.38 * (0.9 if attacked else 0.03) * (8 if "RS" in system else 1), 5),
        loss=round(draw.uniform(10, 90), 5),
    )


def _snr_db(columns: dict[str, Any], draw: random.Random) -> float | None:
    strength = columns["strength"]
    if strength == "" or columns["norm"] == "SNR":
        return None if strength == "" else float(strength)
    level = strength if isinstance(strength, float) else 0.003
    return round(-20 * np.log10(level / 0.05) + draw.gauss(0, 1.5), 4)


def _heard(draw: random.Random, words: list[str], rate: float) -> list[str]:
    heard = []
    for word in words:
        kind = draw.random()
        if kind < 0.62 * rate:
            heard.append(draw.choice(WORDS).upper())
        elif kind >= 0.8 * rate:
            heard.append(word)
        if draw.random() < 0.16 * rate:
            heard.append(draw.choice(WORDS).upper())
    return heard


def _write_audio(folder: Path, rows: list[dict[str, Any]], keep: int, max_seconds: float) -> None:
    cells: dict[tuple[str, ...], list[dict]] = {}
    for entry in rows:
        cells.setdefault((entry["system"], entry["condition"], entry["part"]), []).append(entry)
    (folder / "audio").mkdir(exist_ok=True)
    for cell, members in cells.items():
        members.sort(key=lambda entry: -word_edits(entry) / entry["words"])
        for entry in members[:keep]:
            clean = tones(entry["id"], min(entry["audio_seconds"], max_seconds))
            noise = np.random.default_rng(len(entry["id"])).normal(size=len(clean))
            level = 0 if entry["snr_db"] is None else np.sqrt((clean**2).mean()) * 10 ** (-entry["snr_db"] / 20)
            _write(audio_path(folder, entry["part"], entry["id"]), clean)
            _write(audio_path(folder, *cell, entry["id"]), clean + level * noise)


def tones(name: str, seconds: float) -> np.ndarray:
    """Gliding harmonics in syllables: something to see in a spectrogram."""
    time = np.arange(int(RATE * seconds)) / RATE
    chance = np.random.default_rng(sum(name.encode()))
    pitch = 140 + 50 * np.sin(2 * np.pi * (0.6 + chance.random()) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(k * phase) / k**1.2 for k in range(1, 24))
    return 0.08 * voice * np.clip(np.sin(2 * np.pi * 2.6 * time + chance.random()), 0, None)


def _write(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples.clip(-1, 1), RATE, format="FLAC", subtype="PCM_24")


if __name__ == "__main__":
    write_example(Path(sys.argv[1]), checks=CHECKS)
