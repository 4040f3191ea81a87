"""Speech on disk to batches: manifests, samplers, collation, attacked pairs, the embedded corpus, texts alone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "AttackPairs": "datamodules.pairs",
    "Speech": "datamodules.speech",
    "Synthetic": "datamodules.synthetic",
    "Transcripts": "datamodules.transcripts",
}
__all__ = ["AttackPairs", "Speech", "Synthetic", "Transcripts"]


def __getattr__(name: str) -> Any:
    # Lazy: `python -m datamodules.prepare --help` should not wait for Lightning.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
