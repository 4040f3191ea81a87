"""The embedded corpus: reproducible, varied, and apart by speaker and sentence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile

from datamodules import Synthetic
from datamodules.manifest import Manifest
from datamodules.prepare import main
from datamodules.synthetic import Settings, _sessions, make_corpus
from datamodules.synthetic.espeak import Espeak
from datamodules.synthetic.sentences import PARTS, number, ordinal, part_of, sentence, spoken
from datamodules.synthetic.studio import recorded
from datamodules.synthetic.vocabulary import LETTERS, all_words
from datamodules.synthetic.voices import ACCENTS, TIMBRES, speakers

SMALL = Settings(num_utterances=40, num_voices=4, seed=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    make_corpus(out, SMALL, num_jobs=2)
    return out


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_seed_is_another_corpus(tmp_path: Path):
    settings = Settings(num_utterances=40, num_voices=4, seed=4)
    texts = [{text for session in _sessions(tmp_path, each) for _, text in session.lines} for each in (SMALL, settings)]
    assert len(texts[0] & texts[1]) < 10


def test_parts_share_no_speaker_and_no_sentence(small: Path):
    parts = {part: list(Manifest(small / f"{part}.jsonl.gz").verified()) for part in PARTS}
    assert {part: len(cuts) for part, cuts in parts.items()} == SMALL.part_sizes() == {"train": 36, "dev": 2, "test": 2}
    for key in ("speaker", "text"):
        kinds = [{getattr(cut.supervisions[0], key) for cut in cuts} for cuts in parts.values()]
        assert not kinds[0] & kinds[1] and not kinds[0] & kinds[2] and not kinds[1] & kinds[2]


def test_levels_and_lengths_are_those_of_speech(small: Path):
    levels = []
    for cut in Manifest(small / "train.jsonl.gz"):
        samples, rate = soundfile.read(cut.recording.sources[0].source)
        assert rate == 16_000 and samples.ndim == 1 and np.abs(samples).max() < 0.99
        assert 0.3 < cut.duration < 20
        levels.append(np.sqrt(np.mean(samples**2)))
    assert 0.01 < min(levels) < 0.04 < max(levels) < 0.09


def test_there_are_40_voices_of_several_accents_and_parts_share_no_timbre():
    everyone = speakers(60, seed=0)
    assert len({speaker.voice for speaker in everyone}) == 60
    assert len(TIMBRES) >= 40
    assert len({speaker.voice.split("+")[0] for speaker in everyone} & set(ACCENTS)) >= 5
    for size in (3, 60, 200):
        timbres: dict[str, set[str]] = {part: set() for part in PARTS}
        for speaker in speakers(size, seed=1):
            timbres[speaker.part].add(speaker.voice.split("+")[1])
        assert all(timbres.values())
        assert not timbres["train"] & timbres["dev"] and not timbres["dev"] & timbres["test"]
        assert not timbres["train"] & timbres["test"]


def test_sentences_use_several_hundred_words_and_only_those():
    random = Random(0)
    texts = {part: [sentence(random, part) for _ in range(2_000 if part == "train" else 50)] for part in PARTS}
    counts = Counter(word for part in texts.values() for text in part for word in text.split())
    assert len(counts) > 600
    assert counts.keys() <= set(all_words())
    assert all(counts[letter] > 20 for letter in LETTERS)
    assert all(re.fullmatch(r"[A-Z' ]+", word) for word in counts)
    for part, mine in texts.items():
        assert {part_of(text) for text in mine} == {part}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A B C", "[[eI]] b c"),
        ("N O R A", "n o r [[eI]]"),
        ("ENTER A FIVE", "enter [[eI]] five"),
        ("A DOG SAW A BIG CAT", "a dog saw a big cat"),
    ],
)
def test_a_is_a_letter_among_letters_and_an_article_before_a_word(text: str, said: str):
    assert spoken(text) == said


def test_numbers_are_read_as_people_read_them():
    assert " ".join(number(0)) == "ZERO"
    assert " ".join(number(19)) == "NINETEEN"
    assert " ".join(number(940_317)) == "NINE HUNDRED FORTY THOUSAND THREE HUNDRED SEVENTEEN"
    assert len({" ".join(number(value)) for value in range(10_000)}) == 10_000
    assert [" ".join(ordinal(day)) for day in (1, 12, 20, 21, 30, 31)] == [
        "FIRST",
        "TWELFTH",
        "TWENTIETH",
        "TWENTY FIRST",
        "THIRTIETH",
        "THIRTY FIRST",
    ]
    for value in (-1, 1_000_000):
        with pytest.raises(ValueError, match=f"between 0 and 999999, found {value}"):
            number(value)


def test_a_tone_keeps_its_pitch_and_gets_a_speech_level_in_the_studio():
    rate = 22_050
    tone = (8_000 * np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)).astype(np.int16)
    for seed in range(8):
        signal = recorded(tone, rate, np.random.default_rng(seed))
        peak = np.abs(np.fft.rfft(signal)).argmax() * 16_000 / len(signal)
        assert peak == pytest.approx(1_000, abs=2)
        assert 0.019 < np.sqrt(np.mean(signal**2)) < 0.081
        assert 16_000 * 1.09 < len(signal) < 16_000 * 1.61


def test_the_datamodule_makes_the_same_bytes_once_and_is_a_librispeech(small: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    folder = tmp_path / "new"
    data = Synthetic(str(folder), num_utterances=40, num_voices=4, corpus_seed=3, max_duration=20)
    data.prepare_data()
    assert _files(folder) == _files(small)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    data.prepare_data()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    data.setup("fit")
    assert sum(len(batch) for batch in data.train_dataloader()) == 36
    assert data.dataloader_names("validate") == ["dev"]


def test_another_corpus_in_the_folder_is_never_used(small: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds a synthetic corpus of .*'seed': 3.*asked for"):
        make_corpus(small, Settings(num_utterances=40, num_voices=4, seed=5))
    (tmp_path / "audio").mkdir()
    with pytest.raises(ValueError, match="is not a synthetic corpus"):
        make_corpus(tmp_path, SMALL)


def test_a_corpus_that_fails_halfway_is_not_there(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("datamodules.synthetic.prepare_corpus", lambda *_, **__: [Exception("broken")])
    with pytest.raises(RuntimeError, match="came out wrong: broken"):
        make_corpus(tmp_path / "corpus", Settings(num_utterances=20, num_voices=3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "value"), [("num_utterances", 19), ("num_voices", 2), ("num_voices", 10_000)])
def test_senseless_settings_are_named(option: str, value: int):
    with pytest.raises(ValueError, match=f"{option} must be .*found {value}"):
        Settings(**{option: value})


def test_the_command_line_makes_it(tmp_path: Path, capsys):
    arguments = [
        "synthetic",
        str(tmp_path / "out"),
        "--num-utterances",
        "20",
        "--num-voices",
        "3",
        "--num-jobs",
        "1",
        "--strict",
    ]
    assert main(arguments) == 0
    assert "0 findings" in capsys.readouterr().out
    assert len(list(Manifest(tmp_path / "out/train.jsonl.gz").verified())) == 18


def test_espeak_may_be_loaded_once_in_a_process(monkeypatch):
    monkeypatch.setattr(Espeak, "_loaded_by", 1)
    with pytest.raises(RuntimeError, match="was loaded before"):
        Espeak()


@pytest.mark.long
def test_every_timbre_says_the_same_in_every_process(tmp_path: Path):
    settings = Settings(num_utterances=200, num_voices=len(TIMBRES))
    for name in ("a", "b"):
        make_corpus(tmp_path / name, settings)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
