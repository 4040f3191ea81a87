"""The fields of a cut as they stand in a manifest: plain data that must be checked before use."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

from robust_asr.storage.audio import MAX_SAMPLES, SAMPLE_RATES

_CUT = {"id", "start", "duration", "channel", "supervisions", "recording", "type"}
_RECORDING = {"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids"}
_SUPERVISION = {"id", "recording_id", "start", "duration", "channel", "text", "language", "speaker"}
_SOURCE = {"type", "channels", "source"}


class FieldError(Exception):
    """A field that is not acceptable, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message


def checked_cut(cut: Any, root: Path, *, spoken: bool = True) -> dict[str, Any]:
    """The fields of a cut, its path made absolute below ``root``; FieldError if anything is not as ``prepare`` writes it.

    Args:
        spoken: whether the cut must carry its one text, or none.
    """
    _check_keys(cut, "cut", _CUT)
    if cut.get("type") != "MonoCut":
        raise FieldError("type", f"must be 'MonoCut', found {cut.get('type')!r}")
    _check_id(cut.get("id"), "id")
    if _number(cut, "start") != 0:
        raise FieldError("start", f"must be 0: an utterance is a whole file, found {cut['start']!r}")
    recording, seconds = _checked_recording(cut.get("recording"), root)
    _check_seconds(cut, "duration", seconds)
    if cut.get("channel") not in (0, [0]):
        raise FieldError("channel", f"must be 0, found {cut.get('channel')!r}")
    supervisions = cut.get("supervisions")
    if not isinstance(supervisions, list) or len(supervisions) != int(spoken):
        raise FieldError(
            "supervisions",
            "must hold the one text of the utterance" if spoken else "must be empty: a sound has no text",
        )
    for supervision in supervisions:
        _check_supervision(supervision, seconds)
    return {**cut, "recording": recording}


def _checked_recording(recording: Any, root: Path) -> tuple[dict[str, Any], float]:
    _check_keys(recording, "recording", _RECORDING)
    _check_id(recording.get("id"), "recording.id")
    rate, num_samples = recording.get("sampling_rate"), recording.get("num_samples")
    if type(rate) is not int or rate not in SAMPLE_RATES:
        raise FieldError("sampling_rate", f"is {rate!r}; accepted are {', '.join(map(str, SAMPLE_RATES))}")
    if type(num_samples) is not int or not 0 < num_samples <= MAX_SAMPLES:
        raise FieldError("num_samples", f"is {num_samples!r}; accepted are 1 to {MAX_SAMPLES}")
    _check_seconds(recording, "duration", num_samples / rate)
    if recording.get("channel_ids", [0]) != [0]:
        raise FieldError("channel_ids", f"must be [0]: mono is accepted, found {recording['channel_ids']!r}")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1:
        raise FieldError("sources", "must hold one file")
    source = _checked_source(sources[0], root)
    return {**recording, "sources": [source]}, num_samples / rate


def _checked_source(source: Any, root: Path) -> dict[str, Any]:
    _check_keys(source, "sources", _SOURCE)
    if source.get("type") != "file":
        raise FieldError("type", f"of the source must be 'file', found {source.get('type')!r}: nothing else is opened")
    if source.get("channels") != [0]:
        raise FieldError("channels", f"must be [0]: mono is accepted, found {source.get('channels')!r}")
    name = source.get("source")
    if not isinstance(name, str) or not name or "\0" in name:
        raise FieldError("source", f"must be a path, found {name!r}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise FieldError("source", f"must be a path below the corpus root, found {name!r}")
    return {**source, "source": os.path.join(root, name)}


def _check_supervision(supervision: Any, seconds: float) -> None:
    _check_keys(supervision, "supervisions", _SUPERVISION)
    text = supervision.get("text")
    if not isinstance(text, str) or not text.strip():
        raise FieldError("text", f"must be the words spoken, found {text!r}")
    if _number(supervision, "start") != 0:
        raise FieldError("supervisions.start", f"must be 0, found {supervision['start']!r}")
    _check_seconds(supervision, "duration", seconds)


def _check_keys(value: Any, field: str, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise FieldError(field, f"must be an object, found {type(value).__name__}")
    if unknown := value.keys() - known:
        raise FieldError(min(unknown), f"is not a field of a {field} here; accepted are {', '.join(sorted(known))}")


def _check_id(value: Any, field: str) -> None:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable() or value != value.strip():
        raise FieldError(field, f"must be 1 to 200 printable characters, found {value!r}")


def _number(fields: dict[str, Any], field: str) -> float:
    value = fields.get(field)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise FieldError(field, f"must be a finite number, found {value!r}")
    return value


def _check_seconds(fields: dict[str, Any], field: str, seconds: float) -> None:
    if not abs(_number(fields, field) - seconds) <= 1e-4:
        raise FieldError(field, f"is {fields[field]!r} s, but the recording declares {seconds:.6g} s")
