"""Manifests: lhotse cuts, one JSON line an utterance, with paths relative to the root of their corpus.

A manifest may come from a stranger. lhotse would run a command, open a URL or mirror the end of a short file where a
manifest says so; every line is therefore checked as plain data before lhotse sees it, and audio is read by
``robust_asr.storage.audio`` alone.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut

from datamodules.cut_fields import FieldError, checked_cut
from robust_asr.storage.files import written_whole

SUFFIX = ".jsonl.gz"
CORPUS_FILE = "corpus.json"
_MAX_LINE = 2**20


class Manifest:
    """The utterances of one part of a corpus, read lazily and checked line by line.

    Iterating yields lhotse ``MonoCut`` with the absolute path of the audio.

    Args:
        path: the ``.jsonl.gz`` file.
        root: folder that the paths in the manifest are relative to and may not leave; by default what ``corpus.json``
            beside the manifest says.

    Errors: ValueError naming the manifest, the cut and the field.
    """

    def __init__(self, path: Path | str, *, root: Path | str | None = None, spoken: bool = True) -> None:
        self.path, self.spoken = Path(path), spoken
        if not self.path.is_file():
            raise ValueError(f"there is no manifest {self.path}; `python -m datamodules.prepare` writes it")
        self.root = Path(os.path.realpath(root if root is not None else corpus_root(self.path.parent)))
        if not self.root.is_dir():
            raise ValueError(f"{self.path}: its corpus root {self.root} is not a folder")

    def __iter__(self) -> Iterator[MonoCut]:
        for fields in self._lines():
            yield MonoCut.from_dict(self._checked(fields))

    def verified(self) -> Iterator[MonoCut]:
        """Iterates, and checks what no line shows by itself: ids are unique, every file is there and below the root."""
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
            return checked_cut(cut, self.root, spoken=self.spoken)
        except FieldError as error:
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


def is_manifest(part: str) -> bool:
    """Whether a part is named by the path of its manifest."""
    return part.endswith(SUFFIX)


def part_name(part: str) -> str:
    """The name of a part; of a manifest's path that of its folder and file: ``runs/set/train.jsonl.gz`` is ``set-train``."""
    if not is_manifest(part):
        return part
    path = Path(part)
    return f"{path.parent.name}-{path.name.removesuffix(SUFFIX)}"
