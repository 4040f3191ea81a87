"""Corpora as they are: other formats, links, marks and folder levels end as manifests or as findings, never as an error."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules import Speech
from datamodules.manifest import Manifest
from datamodules.prepare import main
from datamodules.preparing.librispeech import prepare_corpus
from robust_asr.search.writing import lexicon_words
from robust_asr.text import CharacterTokenizer
from tests.datamodules.conftest import write_utterance
from tests.robust_asr.storage.test_audio import without_length

TEXTS = {"1-1-0": "ONE TWO", "1-1-1": "THREE", "2-1-0": "FOUR FIVE"}


def _corpus(root: Path, part: str = "train", texts: dict[str, str] = TEXTS) -> Path:
    for utterance, text in texts.items():
        write_utterance(root, part, utterance, text, seconds=0.1)
    return root


def _prepared(corpus: Path, out: Path, **arguments) -> list[str]:
    return [str(finding) for finding in prepare_corpus(corpus, out, num_jobs=1, **arguments)]


def _texts(out: Path, part: str = "train") -> dict[str, str]:
    return {cut.id: cut.supervisions[0].text for cut in Manifest(out / f"{part}.jsonl.gz").verified()}


def _rewrite(corpus: Path, change) -> None:
    for path in corpus.rglob("*.trans.txt"):
        path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("ending", [".wav", ".WAV", ".FLAC"])
def test_wav_and_flac_are_read_whatever_their_ending_says(ending: str, tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    for path in list(corpus.rglob("*.flac")):
        soundfile.write(path.with_suffix(ending), soundfile.read(path)[0], 16_000)
        path.unlink()
    assert _prepared(corpus, tmp_path / "out", shar=True, shard_size=2) == []
    assert _texts(tmp_path / "out") == TEXTS


@pytest.mark.parametrize("ending", ["m4a", "WMA", "aiff", "sph"])
def test_other_audio_is_named_as_it_is_called_with_what_to_do(ending: str, tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    path = corpus / "train/1/1/1-1-0.flac"
    path.rename(path.with_suffix(f".{ending}"))
    accepted = "FLAC, WAV, Opus, Ogg Vorbis and MP3"
    assert _prepared(corpus, tmp_path / "out") == [
        f"train/1/1/1-1-0.{ending}: is not read; {accepted} are, so convert it: ffmpeg -i 1-1-0.{ending} 1-1-0.flac"
    ]
    assert _texts(tmp_path / "out").keys() == {"1-1-1", "2-1-0"}


@pytest.mark.parametrize(
    ("ending", "form", "subtype"),
    [(".opus", "OGG", "OPUS"), (".OGG", "OGG", "VORBIS"), (".Mp3", "MP3", "MPEG_LAYER_III")],
)
def test_lossy_audio_is_prepared_evaluated_and_trained_on_from_files_and_shards(ending, form, subtype, tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    for path in list(corpus.rglob("*.flac")):
        soundfile.write(path.with_suffix(ending), soundfile.read(path)[0], 16_000, format=form, subtype=subtype)
        path.unlink()
    assert _prepared(corpus, tmp_path / "out", shar=True, shard_size=2) == []
    assert _texts(tmp_path / "out") == TEXTS
    read = {}
    for shar in (False, True):
        speech = Speech(str(tmp_path / "out"), ["train"], test=["train"], shar=shar, max_duration=0.1)
        speech.setup("fit")
        speech.setup("test")
        batches = islice(iter(speech.train_dataloader()), 30)
        read[shar] = {batch.ids[0]: batch.waveforms[0, : int(batch.lengths[0])].numpy() for batch in batches}
        read["test"] = {
            utterance: waveform[:length].numpy()
            for loader in speech.test_dataloader()
            for batch in loader
            for utterance, waveform, length in zip(batch.ids, batch.waveforms, batch.lengths, strict=True)
        }
    for utterance in TEXTS:
        path = next(corpus.rglob(f"{utterance}.*"))
        expected = soundfile.read(path, dtype="float32")[0].clip(-1, 1)
        for samples in (found[utterance] for found in read.values()):
            np.testing.assert_allclose(samples, expected, atol=2**-15)
            np.testing.assert_array_equal(samples, read["test"][utterance])


def test_damaged_and_misnamed_lossy_audio_is_a_finding(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    first = corpus / "train/1/1/1-1-0.flac"
    soundfile.write(first.with_suffix(".ogg"), soundfile.read(first)[0], 16_000)
    first.unlink()
    content = first.with_suffix(".ogg").read_bytes()
    first.with_suffix(".ogg").write_bytes(content[:-5])
    second = corpus / "train/1/1/1-1-1.flac"
    second.rename(second.with_suffix(".mp3")).write_bytes(b"<html>404</html>")
    assert _prepared(corpus, tmp_path / "out") == [
        "train/1/1/1-1-0.ogg: breaks off within an Ogg page",
        "train/1/1/1-1-1.mp3: is neither FLAC, WAV, Ogg nor MP3 by its first bytes",
    ]
    assert _texts(tmp_path / "out").keys() == {"2-1-0"}


def test_transcripts_may_end_in_capitals(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    for path in list(corpus.rglob("*.trans.txt")):
        path.rename(path.with_name(path.name.upper()))
    assert _prepared(corpus, tmp_path / "out") == []
    assert _texts(tmp_path / "out") == TEXTS


def test_of_two_files_of_an_utterance_one_is_read_and_the_other_named(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    path = corpus / "train/1/1/1-1-0.flac"
    soundfile.write(path.with_suffix(".wav"), np.zeros(100), 16_000)
    (finding,) = _prepared(corpus, tmp_path / "out")
    assert finding == "train/1/1/1-1-0.wav: is not read: 1-1-0.flac lies beside it"
    assert _texts(tmp_path / "out") == TEXTS


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"0 ", b"0\t").replace(b"1 T", b"1 \t T"),
        lambda content: content.replace(b"0 ", "0\u00a0".encode()),
        lambda content: b"\xef\xbb\xbf" + content.replace(b"ONE", b"\xef\xbb\xbfONE").replace(b"0 ", b"0 \xef\xbb\xbf"),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.decode().encode("utf-16"),
        lambda content: b"\xfe\xff" + content.decode().encode("utf-16-be"),
    ],
    ids=["tab", "no-break space", "marks", "CRLF", "CR", "UTF-16", "UTF-16 BE"],
)
def test_white_space_marks_and_line_ends_of_any_system_give_the_same_texts(change, tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    _rewrite(corpus, change)
    assert _prepared(corpus, tmp_path / "out") == []
    assert _texts(tmp_path / "out") == TEXTS


def test_a_part_without_a_good_utterance_ends_as_findings_and_the_next_part_follows(tmp_path: Path, capsys):
    for part in ("bad", "train"):
        _corpus(tmp_path / "corpus", part)
    for path in (tmp_path / "corpus/bad").rglob("*.flac"):
        path.write_bytes(b"")
    assert main(["librispeech", str(tmp_path / "corpus"), str(tmp_path / "out"), "--num-jobs", "1"]) == 1
    shown = capsys.readouterr().out
    assert "bad: holds no good utterance: no manifest is written\n" in shown
    assert "4 findings, 3 utterances left out" in shown
    assert _texts(tmp_path / "out") == TEXTS and not (tmp_path / "out/bad.jsonl.gz").exists()


def test_findings_that_leave_too_few_speakers_to_hold_out_are_one_more(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    (corpus / "train/2/1/2-1-0.flac").write_bytes(b"")
    findings = _prepared(corpus, tmp_path / "out", hold_out_speakers=1)
    assert findings[1] == "train: has 1 speakers with good utterances: no train-rest and train-dev are written"
    assert _texts(tmp_path / "out").keys() == {"1-1-0", "1-1-1"}


@pytest.mark.parametrize("named", [".", "corpora/train"])
def test_the_wrong_level_of_folders_is_named_with_the_right_one(named: str, tmp_path: Path):
    _corpus(tmp_path / "corpora")
    findings = prepare_corpus(tmp_path / named, tmp_path / "out", num_jobs=1)
    assert any(f"name {tmp_path / 'corpora'} as the corpus" in str(finding) for finding in findings)
    assert sum(bool(finding.utterance) + finding.num_others for finding in findings) == len(TEXTS)
    assert not list((tmp_path / "out").glob("*.jsonl.gz"))


def test_audio_in_the_folder_of_another_chapter_is_named_where_it_lies(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    (corpus / "train/1/1/1-1-0.flac").rename(corpus / "train/2/1/1-1-0.flac")
    assert _prepared(corpus, tmp_path / "out") == [
        "train/2/1/1-1-0.flac: lies in another folder than its id says; it belongs into train/1/1"
    ]


def test_what_operating_systems_leave_is_passed_over(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    for name in ("__MACOSX/train/1/1/._1-1.trans.txt", "train/1/1/._1-1-0.flac", "train/1/1/._1-1.trans.txt"):
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_bytes(b"\0\5\x16\7\xff")
    for name in (".Trash-1000/x.trans.txt", "train/@eaDir/1-1-9.flac", "train/1/1/Thumbs.db", "train/1/.DS_Store"):
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_bytes(b"\xff")
    assert _prepared(corpus, tmp_path / "out") == []
    assert _texts(tmp_path / "out") == TEXTS


def test_linked_folders_are_entered_within_the_corpus_and_named_where_they_leave_it(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    _corpus(corpus / "pool", "more", {"3-1-0": "SIX"})
    _corpus(tmp_path / "disk", "train", {"4-1-0": "SEVEN"})
    (corpus / "train/3").symlink_to("../pool/more/3")
    (corpus / "train/4").symlink_to(tmp_path / "disk/train/4")
    (corpus / "train/again").symlink_to("1")
    (corpus / "train/loop").symlink_to("../../corpus")
    (corpus / "train/self").symlink_to("self")
    (corpus / "train/1/1/1-1-9.flac").symlink_to("nothing.flac")
    (corpus / "dev").symlink_to(tmp_path / "disk/train")
    findings = _prepared(corpus, tmp_path / "out", parts=["train", "dev"])
    for name, message in {
        "train/4": f"is a link that leaves the corpus, to {tmp_path / 'disk/train/4'}",
        "train/again": f"is a link to {corpus / 'train/1'}, which is read already",
        "train/loop": f"is a link to {corpus}, which is read already",
        "train/1/1/1-1-9.flac": "is a link to nothing",
        "dev": f"is a link that leaves the corpus, to {tmp_path / 'disk/train'}",
    }.items():
        assert sum(line.startswith(f"{name}: {message}") for line in findings) == 1, (name, findings)
    assert len(findings) == 6
    assert _texts(tmp_path / "out") == {**TEXTS, "3-1-0": "SIX"}


def test_what_a_killed_run_left_half_written_is_deleted_by_the_next(tmp_path: Path):
    corpus, out = _corpus(tmp_path / "corpus"), tmp_path / "out"
    (out / ".train-shar.abc.part").mkdir(parents=True)
    (out / f".train.jsonl.gz.{'0' * 32}.partial").touch()
    assert _prepared(corpus, out, shar=True) == []
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_folder_beside_the_parts_that_leaves_the_corpus_is_a_finding_and_no_failure(tmp_path: Path, capsys):
    corpus = _corpus(tmp_path / "corpus")
    (corpus / "notes").symlink_to(tmp_path)
    assert main(["librispeech", str(corpus), str(tmp_path / "out"), "--num-jobs", "1"]) == 0
    assert f"notes: is a link that leaves the corpus, to {tmp_path}" in capsys.readouterr().out


def test_a_transcript_that_is_a_pipe_or_leaves_the_corpus_is_not_opened(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    (tmp_path / "secret.trans.txt").write_text("1-1-0 SECRET\n")
    (corpus / "train/1/2").mkdir()
    (corpus / "train/1/2/1-2.trans.txt").symlink_to(tmp_path / "secret.trans.txt")
    os.mkfifo(corpus / "train/1/2/1-3.trans.txt")
    assert _prepared(corpus, tmp_path / "out") == [
        "train/1/2/1-2.trans.txt: is a link that leaves the corpus",
        "train/1/2/1-3.trans.txt: is not a regular file",
    ]
    assert _texts(tmp_path / "out") == TEXTS


def test_what_the_loader_would_refuse_is_a_finding(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    long_id = "1-1-" + "0" * 210
    write_utterance(corpus, "train", long_id, "LONG", seconds=0.1)
    (corpus / "C:train").mkdir()
    _corpus(corpus, "a\\b", {"5-1-0": "EIGHT"})
    os.rename(os.fsencode(_corpus(corpus, "latin", {"6-1-0": "NINE"}) / "latin"), os.fsencode(corpus) + b"/caf\xe9")
    findings = _prepared(corpus, tmp_path / "out")
    assert any(f"{long_id}.flac: field 'id' must be 1 to 200" in line for line in findings)
    assert any("5-1-0.flac: field 'source' must be a path below the corpus root" in line for line in findings)
    assert any(line == "caf?/6/1/6-1-0.flac: has a path that is not UTF-8; rename it" for line in findings), findings
    assert _texts(tmp_path / "out") == TEXTS


def test_any_locale_reads_and_shows_any_name(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus", "train-é", {"1-1-0": "NAÏVE"})
    write_utterance(corpus, "train-é", "1-1-ü", "TEXT", seconds=0.1).write_bytes(b"")
    command = [sys.executable, "-m", "datamodules.prepare", "librispeech", corpus, tmp_path / "out", "--num-jobs", "1"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"1-1-\\xfc.flac: is an empty file" in done.stdout
    assert _texts(tmp_path / "out", "train-é") == {"1-1-0": "NAÏVE"}


UNWRITABLE = {"1-1-0": "ONE TWO", "1-1-1": "in 1984", "1-1-2": "well-known", "2-1-0": "naïve", "2-1-1": "it’s"}


def test_texts_that_the_alphabet_cannot_write_are_findings_where_it_is_asked_for(tmp_path: Path, capsys):
    corpus = _corpus(tmp_path / "corpus", texts=UNWRITABLE)
    command = ["librispeech", str(corpus), str(tmp_path / "out"), "--num-jobs", "1", "--alphabet"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    for line in (
        "train/1/1/1-1.trans.txt: 1-1-1 has ['1', '4', '8', '9'], which the alphabet",
        "train/1/1/1-1.trans.txt: 1-1-2 has ['-'], which the alphabet",
        "train/2/1/2-1.trans.txt: 2-1-0 has ['Ï'], which the alphabet",
        "3 findings, 3 utterances left out",
    ):
        assert line in shown
    assert _texts(tmp_path / "out") == {"1-1-0": "ONE TWO", "2-1-1": "it’s"}
    assert main([*command, "' ABCDEFGHIJKLMNOPQRSTUVWXYZÏ-"]) == 0
    assert _texts(tmp_path / "out").keys() == UNWRITABLE.keys() - {"1-1-1"}


def test_the_list_of_words_holds_what_a_search_can_spell_and_says_what_is_missing(tmp_path: Path, capsys):
    assert _prepared(_corpus(tmp_path / "corpus", texts=UNWRITABLE), tmp_path / "out") == []
    assert (tmp_path / "out/train.words.txt").read_text().split() == ["IN", "IT'S", "ONE", "TWO"]
    assert "train.words.txt: without 3 words that " in capsys.readouterr().out
    assert len(_texts(tmp_path / "out")) == len(UNWRITABLE)
    lexicon_words(str(tmp_path / "out/train.words.txt"), CharacterTokenizer())


@pytest.mark.parametrize("shar", [False, True])
def test_speech_tells_every_text_of_a_stage(shar: bool, tmp_path: Path):
    for part, texts in {"train": TEXTS, "dev": {"7-1-0": "EIGHT"}, "test": {"8-1-0": "NINE"}}.items():
        _corpus(tmp_path / "corpus", part, texts)
    write_utterance(tmp_path / "corpus", "train", "2-1-9", "TOO SHORT", seconds=0.02)
    _prepared(tmp_path / "corpus", tmp_path / "out", parts=["train", "dev", "test"], shar=shar)
    speech = Speech(str(tmp_path / "out"), ["train"], ["dev"], ["test", "absent"], shar=shar)
    speech.setup("fit")
    told = sorted((utterance, text) for _, utterance, text in speech.texts("fit"))
    assert told == sorted({**TEXTS, "7-1-0": "EIGHT", "8-1-0": "NINE"}.items())
    assert {part for part, *_ in speech.texts("fit")} == {"train-shar" if shar else "train", "dev", "test"}


def test_flac_without_a_length_goes_into_manifests_and_shards(tmp_path: Path):
    corpus = _corpus(tmp_path / "corpus")
    expected = {path.stem: soundfile.read(path, dtype="float32")[0] for path in corpus.rglob("*.flac")}
    for path in list(corpus.rglob("*.flac")):
        without_length(path)
    assert _prepared(corpus, tmp_path / "out", shar=True, shard_size=2) == []
    assert _texts(tmp_path / "out") == TEXTS
    speech = Speech(str(tmp_path / "out"), ["train"], shar=True, max_duration=0.1)
    speech.setup("fit")
    read = {batch.ids[0]: batch.waveforms[0].numpy() for batch in islice(iter(speech._training), 30)}
    assert read.keys() == expected.keys()
    for utterance, samples in expected.items():
        np.testing.assert_array_equal(read[utterance], samples)
