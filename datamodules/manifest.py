"""Manifests: lhotse cuts, one JSON line an utterance, with paths relative to the root of their corpus.

A manifest is a stranger's file. lhotse would run a command, open a URL or mirror the end of a short file where a
manifest says so; every line is therefore checked as plain data before lhotse sees it, and audio is read by
``datamodules.audio`` alone.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from lhotse.cut import MonoCut

from datamodules.audio import MAX_SAMPLES, SAMPLE_RATES
from datamodules.files import written_whole

SUFFIX = ".jsonl.gz"
CORPUS_FILE = "corpus.json"
_MAX_LINE = 2**20
_CUT = {"id", "start", "duration", "channel", "supervisions", "recording", "type"}
_RECORDING = {"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids"}
_SUPERVISION = {"id", "recording_id", "start", "duration", "channel", "text", "language", "speaker"}
_SOURCE = {"type", "channels", "source"}


class Manifest:
    """The utterances of one part of a corpus, read lazily and checked line by line.

    Iterating yields lhotse ``MonoCut`` with the absolute path of the audio.

    Args:
        path: the ``.jsonl.gz`` file.
        root: folder that the paths in the manifest are relative to and may not leave; by default what ``corpus.json``
            beside the manifest says.

    Errors: ValueError naming the manifest, the cut and the field.
    """

    def __init__(self, path: Path | str, *, root: Path | str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"there is no manifest {self.path}; `python -m datamodules.prepare` writes it")
        self.root = Path(os.path.realpath(root if root is not None else corpus_root(self.path.parent)))
        if not self.root.is_dir():
            raise ValueError(f"{self.path}: its corpus root {self.root} is not a folder")

    def __iter__(self) -> Iterator[MonoCut]:
        for fields in self._lines():
            yield MonoCut.from_dict(self._checked(fields))

    def verified(self) -> Iterator[MonoCut]:
        """Iterates and also checks what a line cannot show: ids are unique, every file is there and below the root."""
        seen = set()
        for cut in self:
            if cut.id in seen:
                raise self._error(cut.id, "id", "occurs twice")
            seen.add(cut.id)
            self._check_file(cut)
            yield cut
        if not seen:
            raise ValueError(f"{self.path}: holds no utterance")

    def _lines(self) -> Iterator[Any]:
        number = 0
        try:
            with gzip.open(self.path, "rb") as file:
                while line := file.readline(_MAX_LINE + 1):
                    number += 1
                    if len(line) > _MAX_LINE:
                        raise ValueError(f"{self.path}: line {number} is longer than {_MAX_LINE} bytes")
                    yield json.loads(line)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path}: is damaged after line {number} ({error})") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{self.path}: line {number} is not JSON ({error})") from error

    def _error(self, cut: Any, field: str, message: str) -> ValueError:
        return ValueError(f"{self.path}: cut {cut!r}: field {field!r} {message}")

    def _checked(self, cut: Any) -> dict[str, Any]:
        try:
            return _checked_cut(cut, self.root)
        except _FieldError as error:
            raise self._error(cut.get("id") if isinstance(cut, dict) else None, error.field, error.message) from error

    def _check_file(self, cut: MonoCut) -> None:
        path = cut.recording.sources[0].source
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            raise self._error(cut.id, "source", f"names {path}, which cannot be found ({error.strerror})") from error
        real = (
            os.path.realpath(path) if stat.S_ISLNK(mode) else os.path.join(_real_folder(os.path.dirname(path)), "file")
        )
        if not Path(real).is_relative_to(self.root):
            raise self._error(cut.id, "source", f"names {path}, a link that leaves the corpus root {self.root}")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise self._error(cut.id, "source", f"names {path}, which is not a regular file")


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def corpus_root(folder: Path) -> Path:
    """The root that ``corpus.json`` in a folder of manifests names. ValueError if it names none."""
    path = folder / CORPUS_FILE
    try:
        root = json.loads(path.read_text())["root"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: does not name the root of the corpus ({type(error).__name__}: {error})") from error
    if not isinstance(root, str) or not root:
        raise ValueError(f"{path}: field 'root' must be a folder, found {root!r}")
    return folder / root


def write_corpus_root(folder: Path, root: Path) -> None:
    """Names the root of the corpus beside its manifests; relative where it lies in ``folder``: both can then move."""
    folder, root = folder.resolve(), root.resolve()
    named = os.path.relpath(root, folder) if root.is_relative_to(folder) else str(root)
    if (folder / CORPUS_FILE).exists() and corpus_root(folder).resolve() != root:
        raise ValueError(f"{folder} holds manifests of another corpus, {corpus_root(folder)}; use one folder for each")
    with written_whole(folder / CORPUS_FILE) as path:
        path.write_text(json.dumps({"format": 1, "root": named}, indent=2) + "\n")


def write_manifest(path: Path, cuts: Iterable[MonoCut]) -> None:
    """Writes a manifest whole or not at all; equal cuts give equal bytes."""
    with written_whole(path) as temporary, open(temporary, "wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
            for cut in cuts:
                file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


class _FieldError(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message


def _checked_cut(cut: Any, root: Path) -> dict[str, Any]:
    _check_keys(cut, "cut", _CUT)
    if cut.get("type") != "MonoCut":
        raise _FieldError("type", f"must be 'MonoCut', found {cut.get('type')!r}")
    _check_id(cut.get("id"), "id")
    if _number(cut, "start") != 0:
        raise _FieldError("start", f"must be 0: an utterance is a whole file, found {cut['start']!r}")
    recording, seconds = _checked_recording(cut.get("recording"), root)
    _check_seconds(cut, "duration", seconds)
    if cut.get("channel") not in (0, [0]):
        raise _FieldError("channel", f"must be 0, found {cut.get('channel')!r}")
    supervisions = cut.get("supervisions")
    if not isinstance(supervisions, list) or len(supervisions) != 1:
        raise _FieldError("supervisions", "must hold the one text of the utterance")
    _check_supervision(supervisions[0], seconds)
    return {**cut, "recording": recording}


def _checked_recording(recording: Any, root: Path) -> tuple[dict[str, Any], float]:
    _check_keys(recording, "recording", _RECORDING)
    _check_id(recording.get("id"), "recording.id")
    rate, num_samples = recording.get("sampling_rate"), recording.get("num_samples")
    if type(rate) is not int or rate not in SAMPLE_RATES:
        raise _FieldError("sampling_rate", f"is {rate!r}; accepted are {', '.join(map(str, SAMPLE_RATES))}")
    if type(num_samples) is not int or not 0 < num_samples <= MAX_SAMPLES:
        raise _FieldError("num_samples", f"is {num_samples!r}; accepted are 1 to {MAX_SAMPLES}")
    _check_seconds(recording, "duration", num_samples / rate)
    if recording.get("channel_ids", [0]) != [0]:
        raise _FieldError("channel_ids", f"must be [0]: mono is accepted, found {recording['channel_ids']!r}")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1:
        raise _FieldError("sources", "must hold one file")
    source = _checked_source(sources[0], root)
    return {**recording, "sources": [source]}, num_samples / rate


def _checked_source(source: Any, root: Path) -> dict[str, Any]:
    _check_keys(source, "sources", _SOURCE)
    if source.get("type") != "file":
        raise _FieldError("type", f"of the source must be 'file', found {source.get('type')!r}: nothing else is opened")
    if source.get("channels") != [0]:
        raise _FieldError("channels", f"must be [0]: mono is accepted, found {source.get('channels')!r}")
    name = source.get("source")
    if not isinstance(name, str) or not name or "\0" in name:
        raise _FieldError("source", f"must be a path, found {name!r}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise _FieldError("source", f"must be a path below the corpus root, found {name!r}")
    return {**source, "source": os.path.join(root, name)}


def _check_supervision(supervision: Any, seconds: float) -> None:
    _check_keys(supervision, "supervisions", _SUPERVISION)
    text = supervision.get("text")
    if not isinstance(text, str) or not text.strip():
        raise _FieldError("text", f"must be the words spoken, found {text!r}")
    if _number(supervision, "start") != 0:
        raise _FieldError("supervisions.start", f"must be 0, found {supervision['start']!r}")
    _check_seconds(supervision, "duration", seconds)


def _check_keys(value: Any, field: str, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise _FieldError(field, f"must be an object, found {type(value).__name__}")
    if unknown := value.keys() - known:
        raise _FieldError(min(unknown), f"is not a field of a {field} here; accepted are {', '.join(sorted(known))}")


def _check_id(value: Any, field: str) -> None:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable() or value != value.strip():
        raise _FieldError(field, f"must be 1 to 200 printable characters, found {value!r}")


def _number(fields: dict[str, Any], field: str) -> float:
    value = fields.get(field)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _FieldError(field, f"must be a finite number, found {value!r}")
    return value


def _check_seconds(fields: dict[str, Any], field: str, seconds: float) -> None:
    if not abs(_number(fields, field) - seconds) <= 1e-4:
        raise _FieldError(field, f"is {fields[field]!r} s, but the recording declares {seconds:.6g} s")
