"""Audio in whatever form somebody has it: recognised by what lies there, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.preparing.any_audio import read_any


def _wave(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(1600), 16_000)
    return path


def test_librispeech_is_one_part_with_the_utterances_of_all(corpus: Path) -> None:
    whole, dev = read_any(corpus, "audio"), read_any(corpus / "dev", "audio")
    assert len(whole.texts) == 58 and len(dev.texts) == 11 and set(dev.texts) < set(whole.texts)
    assert not whole.findings and whole.name == "audio"
    one = next(iter(dev.texts))
    assert dev.audio[one].is_file() and dev.texts[one] == whole.texts[one] and dev.speakers[one] == one.split("-")[0]


def test_audio_with_texts_beside_it(tmp_path: Path) -> None:
    for name in ("a.wav", "deep/b.flac", "deep/c.wav", "lonely.wav", "odd.m4a"):
        if name.endswith("m4a"):
            (tmp_path / name).write_bytes(b"x")
        else:
            _wave(tmp_path / name)
    for name, text in (("a", "One\n two"), ("deep/b", "three"), ("deep/c", ""), ("odd", "x"), ("text_alone", "y")):
        (tmp_path / f"{name}.txt").write_text(text)
    part = read_any(tmp_path, "audio")
    good = part.without_findings()
    assert {utterance: part.texts[utterance] for utterance in good} == {"a": "One two", "deep-b": "three"}
    assert part.audio["deep-b"] == tmp_path / "deep/b.flac"
    said = sorted(map(str, part.findings))
    assert said == [
        "deep/c.txt: c.wav: deep-c has an empty transcript",
        "lonely.wav: there is audio, but no lonely.txt",
        "odd.m4a: is not read; .flac, .wav, .opus, .ogg, .oga, .mp3 are",
    ]


def test_a_table(tmp_path: Path) -> None:
    _wave(tmp_path / "clips/a.wav")
    table = tmp_path / "mine.csv"
    table.write_text("path,text,part\nclips/a.wav,one,x\n../out.wav,two,y\n")
    part = read_any(table, "audio")
    assert part.texts == {"clips-a": "one"} and part.audio["clips-a"] == tmp_path / "clips/a.wav"
    assert "lies outside of the corpus" in str(part.findings[0])


def test_an_id_of_two_parts_is_named(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("path,text,id,part\na.wav,one,same,x\nb.wav,two,same,y\n")
    assert [str(finding) for finding in read_any(table, "audio").findings] == ["mine.csv: y: the id same occurs twice"]


def test_what_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder and no table"):
        read_any(tmp_path / "nowhere", "audio")
    with pytest.raises(ValueError, match=r"neither LibriSpeech's layout nor audio files with a \.txt .* beside them$"):
        read_any(tmp_path, "audio")
    _wave(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"the first of 1 faults: a\.wav: there is audio, but no a\.txt"):
        read_any(tmp_path, "audio")
