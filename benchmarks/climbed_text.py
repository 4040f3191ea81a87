"""Which text an untargeted attack on Whisper climbs away from, and whether a margin over its tokens does more.

``RASR_SHARED_DATA=FOLDER python -m benchmarks.climbed_text``, with the extra [hf]. The folder holds ``whisper_tiny_en`` and
``LibriSpeech/train-clean-100``; no other table uses these utterances. PGD with its defaults and few iterations, each utterance
alone. It goes on where it stopped: each attack is a line of the file of rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from benchmarks.corpus import hardware
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.noise import Clean
from robust_asr.attacks.objectives import Loss, Mixture, Objective, TokenMargin
from robust_asr.attacks.pgd import PGD
from robust_asr.measuring.rows import measured
from robust_asr.metrics import word_edits
from robust_asr.models.whisper import Whisper
from robust_asr.randomness import utterance_seeds
from robust_asr.results.intervals import difference_interval, rate_interval
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch

# Shorter texts say little about an error rate.
_LEAST_WORDS = 10
# What is raised, and away from which text; the first is what the others are compared with.
_CONTENDERS: dict[str, tuple[Objective, str]] = {
    "loss, reference": (Loss(), "reference"),
    "loss, own transcript": (Loss(), "transcript"),
    "loss, both": (Loss(), "both"),
    "token margin": (TokenMargin(), "reference"),
    "loss + token margin, both": (Mixture((Loss(), TokenMargin())), "both"),
}


def utterances(folder: Path, num: int) -> list[AudioBatch]:
    """Spread over the speakers in their order; a batch each."""
    found = []
    for path in sorted((folder / "LibriSpeech" / "train-clean-100").rglob("*.trans.txt")):
        lines = (line.split(" ", 1) for line in path.read_text().splitlines())
        found += [(path.with_name(f"{name}.flac"), text) for name, text in lines if len(text.split()) >= _LEAST_WORDS]
    return [_batch(*found[len(found) * place // num]) for place in range(num)]


def _batch(path: Path, text: str) -> AudioBatch:
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    return AudioBatch(samples[None], torch.tensor([len(samples)]), (text,), (path.stem,))


class Rows:
    """What was measured so far, a JSON line for each utterance, contender and budget."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        self._known = {tuple(key): row for key, row in map(json.loads, lines)}

    def of(self, key: tuple[Any, ...], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self._known:
            self._known[key] = measure()
            with self.path.open("a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--eps", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--rows", type=Path, default=Path("runs/climbed_text.jsonl"))
    options = parser.parse_args()
    folder = Path(os.environ["RASR_SHARED_DATA"])
    whisper, batches = Whisper(str(folder / "whisper_tiny_en")), utterances(folder, options.utterances)
    rows = Rows(options.rows)

    def row(attack: PGD | Clean, batch: AudioBatch) -> dict[str, Any]:
        result = attack(whisper, batch, seeds=utterance_seeds(0, batch.ids))
        return measured(result, batch, 0, seconds_per_sample=0, sample_rate=whisper.sample_rate)

    def counted(name: str, eps: float, attack: PGD | Clean) -> tuple[Tensor, Tensor]:
        """Edits and words. Shape: (B,), (B,)."""
        keys = [(batch.ids[0], name, eps, options.iterations) for batch in batches]
        pairs = zip(keys, batches, strict=True)
        found = [rows.of(key, lambda batch=batch: row(attack, batch)) for key, batch in pairs]
        return torch.tensor([word_edits(one) for one in found]), torch.tensor([one["words"] for one in found])

    clean = _percent(*counted("clean", 0.0, Clean()), rate_interval)
    print(f"{hardware()}; {options.utterances} utterances, PGD-{options.iterations}; clean {clean}\n")
    first = next(iter(_CONTENDERS))
    print(f"| eps | raised | WER, % | minus {first}, points |\n|---|---|---|---|", flush=True)
    for eps in options.eps:
        found: dict[str, Tensor] = {}
        for name, (objective, away_from) in _CONTENDERS.items():
            goal = Untargeted(away_from=away_from)
            attack = PGD(Linf(eps), goal=goal, objective=objective, num_iterations=options.iterations)
            edits, words = counted(name, eps, attack)
            found[name] = edits
            more = "" if name == first else _percent(edits - found[first], words, difference_interval)
            print(f"| {eps:g} | {name} | {_percent(edits, words, rate_interval)} | {more} |", flush=True)


def _percent(edits: Tensor, words: Tensor, interval: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    low, high = map(float, interval(edits, words))
    return f"{100 * float(edits.sum() / words.sum()):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
