"""Manifests: what is written is read back; what a stranger wrote is checked before anything is opened."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lhotse import CutSet

from datamodules.manifest import Manifest, corpus_root, write_corpus_root, write_manifest
from tests.datamodules.conftest import write_utterance

Cut = dict[str, Any]


def _cut() -> Cut:
    """A sound line, as ``prepare`` writes it."""
    return {
        "id": "1-1-0",
        "start": 0.0,
        "duration": 0.5,
        "channel": 0,
        "type": "MonoCut",
        "supervisions": [
            {"id": "1-1-0", "recording_id": "1-1-0", "start": 0.0, "duration": 0.5, "channel": 0, "text": "YES"}
        ],
        "recording": {
            "id": "1-1-0",
            "sources": [{"type": "file", "channels": [0], "source": "train/1/1/1-1-0.flac"}],
            "sampling_rate": 16_000,
            "num_samples": 8_000,
            "duration": 0.5,
            "channel_ids": [0],
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``corpus`` with one utterance and a link out of it, a ``secret`` beside it, and an empty folder of ``manifests``."""
    write_utterance(tmp_path / "corpus", "train", "1-1-0", "YES", seconds=0.5)
    shutil.copy(tmp_path / "corpus/train/1/1/1-1-0.flac", tmp_path / "secret.flac")
    (tmp_path / "corpus/link.flac").symlink_to(tmp_path / "secret.flac")
    (tmp_path / "outside").mkdir()
    shutil.copy(tmp_path / "secret.flac", tmp_path / "outside/secret.flac")
    (tmp_path / "corpus/linked").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "corpus/pipe.flac")
    write_corpus_root(tmp_path / "manifests", tmp_path / "corpus")
    return tmp_path / "manifests"


def _written(folder: Path, *lines: object) -> Path:
    path = folder / "train.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return path


def _set(*path: str | int, to: object) -> Callable[[Cut], object]:
    def change(cut: Cut) -> None:
        target = cut
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Cut], object]:
    def change(cut: Cut) -> None:
        target = cut
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


def _source(name: object) -> Callable[[Cut], object]:
    return _set("recording", "sources", 0, "source", to=name)


def _of_type(kind: str, source: str) -> Callable[[Cut], object]:
    return _set("recording", "sources", 0, to={"type": kind, "channels": [0], "source": source})


SPEED = [{"name": "Speed", "kwargs": {"factor": 0.9}}]
FIRST, TEXT = ("recording", "sources", 0), ("supervisions", 0)
MALICIOUS = {
    "absolute path": ("source", _source("/etc/passwd")),
    "parent folder": ("source", _source("../secret.flac")),
    "parent folder in the middle": ("source", _source("train/../../secret.flac")),
    "link out": ("source", _source("link.flac")),
    "linked folder": ("source", _source("linked/secret.flac")),
    "pipe": ("source", _source("pipe.flac")),
    "folder": ("source", _source("train")),
    "missing file": ("source", _source("train/1/1/1-1-9.flac")),
    "empty path": ("source", _source("")),
    "null byte": ("source", _source("train\0/1.flac")),
    "backslashes": ("source", _source("..\\secret.flac")),
    "URL as a file": ("source", _source("http://localhost/a.flac")),
    "path is a list": ("source", _source(["a", "b"])),
    "command": ("type", _of_type("command", "touch HACKED")),
    "url": ("type", _of_type("url", "http://localhost/a.flac")),
    "memory": ("type", _of_type("memory", "AAAA")),
    "shar": ("type", _of_type("shar", "")),
    "no source type": ("type", _drop(*FIRST, "type")),
    "two sources": ("sources", _set("recording", "sources", to=_cut()["recording"]["sources"] * 2)),
    "no source": ("sources", _set("recording", "sources", to=[])),
    "second channel": ("channels", _set(*FIRST, "channels", to=[1])),
    "stereo": ("channel_ids", _set("recording", "channel_ids", to=[0, 1])),
    "channel of the cut": ("channel", _set("channel", to=3)),
    "audio transform": ("transforms", _set("recording", "transforms", to=SPEED)),
    "odd rate": ("sampling_rate", _set("recording", "sampling_rate", to=1)),
    "rate as text": ("sampling_rate", _set("recording", "sampling_rate", to="16000")),
    "no samples": ("num_samples", _set("recording", "num_samples", to=0)),
    "negative samples": ("num_samples", _set("recording", "num_samples", to=-8_000)),
    "too many samples": ("num_samples", _set("recording", "num_samples", to=10**12)),
    "true samples": ("num_samples", _set("recording", "num_samples", to=True)),
    "length against rate": ("duration", _set("recording", "sampling_rate", to=8_000)),
    "recording without duration": ("duration", _drop("recording", "duration")),
    "negative start": ("start", _set("start", to=-0.5)),
    "start inside": ("start", _set("start", to=0.1)),
    "start is nan": ("start", _set("start", to=float("nan"))),
    "zero duration": ("duration", _set("duration", to=0)),
    "longer than the recording": ("duration", _set("duration", to=0.6)),
    "endless": ("duration", _set("duration", to=float("inf"))),
    "duration as text": ("duration", _set("duration", to="0.5")),
    "no text": ("text", _drop(*TEXT, "text")),
    "blank text": ("text", _set(*TEXT, "text", to="  ")),
    "text is a number": ("text", _set(*TEXT, "text", to=1)),
    "no supervision": ("supervisions", _set("supervisions", to=[])),
    "supervision elsewhere": ("supervisions.start", _set(*TEXT, "start", to=0.2)),
    "another type of cut": ("type", _set("type", to="MixedCut")),
    "features": ("features", _set("features", to={"storage_type": "kaldiio", "storage_path": "cat /etc/passwd |"})),
    "custom fields": ("custom", _set("custom", to={"target_recording": {"sources": []}})),
    "no id": ("id", _drop("id")),
    "id with a line break": ("id", _set("id", to="1\n2")),
    "no recording": ("recording", _drop("recording")),
}


def test_a_sound_manifest_is_read(folder: Path):
    (cut,) = Manifest(_written(folder, _cut())).verified()
    assert (cut.id, cut.duration, cut.supervisions[0].text) == ("1-1-0", 0.5, "YES")
    assert Path(cut.recording.sources[0].source).is_file()


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_or_broken_line_is_one_error_that_names_manifest_cut_and_field(
    name: str, folder: Path, monkeypatch
):
    field, change = MALICIOUS[name]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("robust_asr.storage.audio.soundfile.SoundFile", lambda *_: pytest.fail("audio was opened"))
    good, bad = _cut(), _cut()
    bad["id"] = "1-1-1"
    change(bad)
    path = _written(folder, good, bad)
    with pytest.raises(ValueError) as raised:
        list(Manifest(path).verified())
    assert str(path) in str(raised.value)
    assert repr(bad.get("id")) in str(raised.value)
    assert f"field {field!r}" in str(raised.value)
    assert not (folder / "HACKED").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([_cut(), _cut()], "field 'id' occurs twice"),
        (["{"], "line 1 is not JSON"),
        ([_cut(), "[1, 2]"], "must be an object, found list"),
        (["[" * 100_000], "line 1 is not JSON"),
        ([" " * 2_000_000], "line 1 is longer than"),
        ([], "holds no utterance"),
    ],
)
def test_a_malformed_manifest_is_one_error(lines: list[object], message: str, folder: Path):
    with pytest.raises(ValueError, match=message):
        list(Manifest(_written(folder, *lines)).verified())


def test_a_truncated_manifest_is_damaged_and_not_short(folder: Path):
    path = _written(folder, *({**_cut(), "id": str(index)} for index in range(200)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged after line"):
        list(Manifest(path).verified())


def test_manifest_and_root_must_exist(folder: Path):
    with pytest.raises(ValueError, match=r"there is no manifest .*dev"):
        Manifest(folder / "dev.jsonl.gz")
    path = _written(folder, _cut())
    with pytest.raises(ValueError, match="is not a folder"):
        Manifest(path, root=folder / "nowhere")
    (folder / "corpus.json").write_text('{"root": 3}')
    with pytest.raises(ValueError, match="field 'root' must be a folder, found 3"):
        Manifest(path)
    (folder / "corpus.json").unlink()
    with pytest.raises(ValueError, match="does not name the root"):
        Manifest(path)


def test_manifests_inside_move_with_their_corpus_and_others_are_told_the_new_root(folder: Path):
    corpus = folder.parent / "corpus"
    write_corpus_root(corpus.parent, corpus)
    assert json.loads((corpus.parent / "corpus.json").read_text())["root"] == "corpus"
    assert corpus_root(folder).resolve() == corpus.resolve()
    path = _written(folder, _cut())
    corpus.rename(folder.parent / "moved")
    (cut,) = Manifest(path, root=folder.parent / "moved").verified()
    assert "moved" in cut.recording.sources[0].source


def test_a_folder_holds_the_manifests_of_one_corpus(folder: Path):
    with pytest.raises(ValueError, match="manifests of another corpus"):
        write_corpus_root(folder, folder.parent / "outside")


def test_what_is_written_is_lhotse_s_format_and_always_the_same_bytes(folder: Path):
    cuts = list(CutSet.from_jsonl_lazy(_written(folder, _cut())))
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_manifest(folder / name, cuts)
    assert (folder / "a.jsonl.gz").read_bytes() == (folder / "b.jsonl.gz").read_bytes()
    assert list(CutSet.from_jsonl_lazy(folder / "a.jsonl.gz")) == cuts
    assert [cut.id for cut in Manifest(folder / "a.jsonl.gz").verified()] == ["1-1-0"]
