"""From a folder to manifests: everything that is wrong is named, and what is right is kept."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tqdm import tqdm

from datamodules.manifest import Manifest
from datamodules.prepare import main
from datamodules.preparing.librispeech import prepare_corpus
from tests.datamodules.conftest import write_utterance


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """Three good utterances among one of everything that can be wrong."""
    root = tmp_path / "corpus"
    for index in range(3):
        write_utterance(root, "train", f"1-1-{index}", f"GOOD {index}", seconds=0.2)
    write_utterance(root, "train", "1-2-stereo", "TEXT", seconds=0.2)
    soundfile.write(root / "train/1/2/1-2-stereo.flac", np.zeros((3_200, 2)), 16_000)
    write_utterance(root, "train", "1-2-corrupt", "TEXT", seconds=0.2)
    corrupt = root / "train/1/2/1-2-corrupt.flac"
    corrupt.write_bytes(corrupt.read_bytes()[:-500] + bytes(500))
    write_utterance(root, "train", "1-2-empty", "TEXT", seconds=0.2)
    (root / "train/1/2/1-2-empty.flac").write_bytes(b"")
    write_utterance(root, "train", "1-2-short", "TEXT", seconds=0.2)
    soundfile.write(root / "train/1/2/1-2-short.flac", np.zeros(0), 16_000, format="WAV")
    write_utterance(root, "train", "1-2-rate", "TEXT", seconds=0.2, rate=12_345)
    write_utterance(root, "train", "1-2-silent", "", seconds=0.2)
    write_utterance(root, "train", "1-2-missing", "TEXT", seconds=0.2).unlink()
    write_utterance(root, "train", "1-2-twice", "ONE TEXT", seconds=0.2)
    write_utterance(root, "train", "1-2-twice", "ANOTHER", seconds=0.2)
    write_utterance(root, "train", "1-2-loud", "TEXT", seconds=0.2)
    soundfile.write(root / "train/1/2/1-2-loud.flac", np.full(3_200, 1e4), 16_000, subtype="FLOAT", format="WAV")
    write_utterance(root, "train", "1-2-nan", "TEXT", seconds=0.2)
    soundfile.write(root / "train/1/2/1-2-nan.flac", np.full(3_200, np.nan), 16_000, subtype="FLOAT", format="WAV")
    write_utterance(root, "train", "1-2-link", "TEXT", seconds=0.2).rename(tmp_path / "elsewhere.flac")
    (root / "train/1/2/1-2-link.flac").symlink_to(tmp_path / "elsewhere.flac")
    shutil.copy(root / "train/1/1/1-1-0.flac", root / "train/1/2/1-2-untold.flac")
    with open(root / "train/1/2/1-2.trans.txt", "ab") as transcript:
        transcript.write(b"\n1-2-latin caf\xe9\n../../../etc/passwd TEXT\n")
    return root


EXPECTED = {
    "1-2-stereo.flac": "has 2 channels; mono is accepted, so convert it: ffmpeg -i 1-2-stereo.flac -ac 1 -ar 16000 1-2-stereo.wav",
    "1-2-corrupt.flac": "",
    "1-2-empty.flac": "is an empty file",
    "1-2-short.flac": "has no samples",
    "1-2-rate.flac": "192000 are accepted, so convert it: ffmpeg -i 1-2-rate.flac -ac 1",
    "1-2-silent": "has an empty transcript",
    "1-2-missing.flac": "there is no audio",
    "1-2-twice": "occurs twice",
    "1-2-loud.flac": "the accepted range",
    "1-2-nan.flac": "not finite",
    "1-2-link.flac": "a link that leaves the corpus",
    "1-2-untold.flac": "there is audio, but no transcript",
    "is empty": "1-2.trans.txt",
    "is not UTF-8": "1-2.trans.txt",
    "etc/passwd": "is not speaker-chapter-number",
}


def test_every_fault_is_one_finding_that_names_its_file_and_the_rest_is_kept(dirty: Path, tmp_path: Path):
    findings = prepare_corpus(dirty, tmp_path / "out", num_jobs=1)
    lines = [str(finding) for finding in findings]
    for name, message in EXPECTED.items():
        matching = [line for line in lines if name in line and message in line]
        assert len(matching) == 1, (name, lines)
    assert len(lines) == len(EXPECTED)
    cuts = list(Manifest(tmp_path / "out/train.jsonl.gz").verified())
    assert {cut.id: cut.supervisions[0].text for cut in cuts} == {f"1-1-{index}": f"GOOD {index}" for index in range(3)}


def test_the_exit_code_tells_only_if_asked(dirty: Path, corpus: Path, tmp_path: Path, capsys):
    arguments = ["librispeech", str(dirty), str(tmp_path / "out"), "--num-jobs", "1"]
    assert main(arguments) == 0
    assert main([*arguments, "--strict"]) == 1
    assert f"{len(EXPECTED)} findings, 12 utterances left out" in capsys.readouterr().out
    assert main(["librispeech", str(corpus), str(tmp_path / "clean"), "--num-jobs", "1", "--strict"]) == 0
    assert "0 findings" in capsys.readouterr().out


def test_an_unusual_rate_is_named_and_kept(tmp_path: Path):
    for index in range(3):
        write_utterance(tmp_path / "corpus", "dev", f"1-1-{index}", "TEXT", seconds=0.2)
    write_utterance(tmp_path / "corpus", "dev", "1-1-8k", "TEXT", seconds=0.2, rate=8_000)
    (finding,) = prepare_corpus(tmp_path / "corpus", tmp_path / "out", num_jobs=1)
    assert "1-1-8k.flac: has rate 8000, most have 16000" in str(finding)
    assert len(list(Manifest(tmp_path / "out/dev.jsonl.gz"))) == 4


def test_a_corpus_of_two_rates_is_one_finding(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("datamodules.preparing.verification._MOST_NAMED", 1)
    for index in range(5):
        rate = 16_000 if index < 3 else 8_000
        write_utterance(tmp_path / "corpus", "dev", f"1-1-{index}", "TEXT", seconds=0.2, rate=rate)
    (finding,) = prepare_corpus(tmp_path / "corpus", tmp_path / "out", num_jobs=1)
    assert str(finding) == "dev/1/1/1-1-3.flac: and 1 others have rate 8000, most have 16000"
    assert len(list(Manifest(tmp_path / "out/dev.jsonl.gz"))) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["librispeech", "nowhere", "out"], "the corpus nowhere is not a folder"),
        (["librispeech", "empty", "out"], "has no folder with a .*trans.txt"),
        (["librispeech", "CORPUS", "out", "--parts", "test"], "parts: test not in .*; it has dev, train"),
        (["librispeech", "CORPUS", "out", "--parts", "../train"], "parts: ../train not in"),
        (
            ["librispeech", "CORPUS", "out", "--hold-out-speakers", "5"],
            "hold_out_speakers must be between 1 and 4, found 5",
        ),
        (
            ["librispeech", "CORPUS", "out", "--parts", "dev", "--hold-out-speakers", "1"],
            "no part of dev begins with 'train'",
        ),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, corpus: Path, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main([str(corpus) if argument == "CORPUS" else argument for argument in arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_held_out_speakers_are_apart_chosen_by_the_seed_and_the_whole_part_stays(corpus: Path, tmp_path: Path):
    speakers = {}
    for seed in (0, 1, 2):
        out = tmp_path / str(seed)
        prepare_corpus(corpus, out, parts=["train"], hold_out_speakers=2, seed=seed, num_jobs=1)
        parts = {name: list(Manifest(out / f"{name}.jsonl.gz")) for name in ("train", "train-rest", "train-dev")}
        spoken_by = {name: {cut.supervisions[0].speaker for cut in cuts} for name, cuts in parts.items()}
        assert len(spoken_by["train-dev"]) == 2
        assert not spoken_by["train-dev"] & spoken_by["train-rest"]
        assert spoken_by["train-dev"] | spoken_by["train-rest"] == spoken_by["train"]
        assert len(parts["train-dev"]) + len(parts["train-rest"]) == len(parts["train"]) == 47
        speakers[seed] = frozenset(spoken_by["train-dev"])
    assert len(set(speakers.values())) > 1


def test_equal_corpora_give_equal_bytes_in_an_order_that_mixes_speakers(corpus: Path, manifests: Path, tmp_path: Path):
    prepare_corpus(corpus, tmp_path, num_jobs=2)
    for name in ("train.jsonl.gz", "dev.jsonl.gz"):
        assert (tmp_path / name).read_bytes() == (manifests / name).read_bytes()
    ids = [cut.id for cut in Manifest(tmp_path / "train.jsonl.gz")]
    assert ids != sorted(ids)
    assert len({utterance.split("-")[0] for utterance in ids[:10]}) >= 3


def _prepare_apart(corpus: Path, out: Path) -> None:
    # tqdm's lock is shared with forks: killed while it holds it, a child would leave the other tests waiting for it.
    tqdm.set_lock(threading.RLock())
    prepare_corpus(corpus, out, num_jobs=1)


def test_killed_at_any_moment_there_is_a_whole_manifest_or_none(corpus: Path, manifests: Path, tmp_path: Path):
    # Later and later, until one is not killed at all: however busy the machine is.
    seconds, names, finished = 0.005, set(), False
    while not finished:
        out = tmp_path / f"{seconds}"
        process = multiprocessing.get_context("fork").Process(target=_prepare_apart, args=(corpus, out))
        process.start()
        process.join(seconds)
        finished = not process.is_alive()
        process.kill()
        process.join()
        names = {path.name for path in out.glob("[!.]*.jsonl.gz")}
        assert all((out / name).read_bytes() == (manifests / name).read_bytes() for name in names)
        seconds *= 1.5
    assert process.exitcode == 0 and names == {path.name for path in manifests.glob("[!.]*.jsonl.gz")}


@pytest.mark.shared_data
def test_real_speech_is_found_clean(real_manifests: Path):
    sizes = {
        "an4": {"train": 948, "test": 130},
        "LibriSpeech": {"train-clean-100": 160, "dev-clean": 9, "test-clean": 19},
    }
    for name, parts in sizes.items():
        assert {part: len(list(Manifest(real_manifests / name / f"{part}.jsonl.gz"))) for part in parts} == parts


@pytest.mark.parametrize("shar", [False, True])
def test_one_bar_counts_the_whole_task(shar: bool, corpus: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("datamodules.preparing.parallel._SECONDS_IN_A_FILE", 0.0)
    arguments = {"shar": True, "shard_size": 5} if shar else {}
    prepare_corpus(corpus, tmp_path / "out", hold_out_speakers=1, num_jobs=1, **arguments)
    shown = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "|" in line]
    what = "reading and writing" if shar else "reading"
    assert shown and all(line.startswith(f"{what}: ") for line in shown)
    sizes = [
        len(list(Manifest(tmp_path / f"out/{part}.jsonl.gz"))) for part in ("train", "train-rest", "train-dev", "dev")
    ]
    work = sizes[0] + sizes[3] + (sum(sizes) if shar else 0)
    assert re.fullmatch(rf"{what}: 100%\|█+\| {work}/{work} utterances \[\d\d:\d\d, 00:00 left\]", shown[-1].strip())


def test_a_folder_that_cannot_be_made_is_one_sentence(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["librispeech", str(corpus), "/proc/x/out", "--num-jobs", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: /proc/x")
