"""An evaluation made up for the tests of breaking points: the example's systems, each 10 dB harder to break than the one before.

``python -m tests.robust_asr.report.breaking_example OUT`` writes it to a folder, to look at.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from robust_asr.types import Broken
from tests.robust_asr.report.example import CHECKS, CONDITIONS, SYSTEMS, write_example

BREAKING = {
    "attack": "breaking point (50 % of the words): standard-1 (60 forwards)",
    "norm": "Linf",
    "strength": "1e-05 to 0.01",
    "strength_unit": "amplitude",
    "knowledge": "exact",
    "breaking": "50 % of the words",
}
# Levels in dB: of the least and of the largest budget, and of the speech.
_LEAST, _MOST, _SPEECH = -100.0, -40.0, -26.0


def write_breaking(
    folder: Path, *, num_utterances: int = 12, seed: int = 0, columns: dict[str, Any] | None = None, **more: Any
) -> Path:
    """Clean audio, an attack, and the condition "breaking"; ``more`` goes to ``write_example``."""
    conditions = {name: CONDITIONS[name] for name in ("clean", "pgd7-0.001")} | {"breaking": columns or BREAKING}
    write_example(folder, conditions=conditions, num_utterances=num_utterances, seed=seed, keep_audio=0, **more)
    path, places = folder / "results.jsonl", list(more.get("systems") or SYSTEMS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in rows:
        if entry["condition"] == "breaking":
            chance = random.Random(f"{seed} {entry['id']}")
            own = random.Random(f"{seed} {entry['id']} {entry['system']}")
            level = chance.gauss(-65, 8) + own.gauss(0, 1) + 10 * places.index(entry["system"])
            entry |= _broken(min(max(level, _LEAST), _MOST)) | {"forwards": 300}
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return folder


def _broken(level: float) -> dict[str, Any]:
    outcome = {_LEAST: Broken.SMALLEST, _MOST: Broken.BEYOND}.get(level, Broken.WITHIN)
    return {
        "breaking": str(outcome),
        "breaking_amplitude": 10 ** (level / 20),
        "breaking_snr_db": _SPEECH - level,
        "budgets_tried": 6,
    }


if __name__ == "__main__":
    write_breaking(Path(sys.argv[1]), num_utterances=40, checks=CHECKS)
