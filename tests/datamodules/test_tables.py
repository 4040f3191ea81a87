"""Common Voice, VoxPopuli and tables of one's own: what is right is kept, what is wrong is named with its line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules import Speech
from datamodules.manifest import Manifest
from datamodules.prepare import main

FORMATS = {".mp3": ("MP3", "MPEG_LAYER_III"), ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}


def _audio(path: Path, *, rate: int = 16_000, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).normal(0, 0.05, round(seconds * rate))
    form, subtype = FORMATS.get(path.suffix.lower(), (None, None))
    soundfile.write(path, noise, rate, format=form, subtype=subtype)
    return path


def _kept(out: Path, part: str) -> dict[str, tuple[str, str | None]]:
    """Text and speaker by id."""
    cuts = Manifest(out / f"{part}.jsonl.gz").verified()
    return {cut.id: (cut.supervisions[0].text, cut.supervisions[0].speaker) for cut in cuts}


def _common_voice(root: Path, *, parts: tuple[str, ...] = ("train", "dev", "test", "validated")) -> Path:
    for part in parts:
        lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes"]
        for index in range(4):
            name = f"common_voice_en_{part}{index}"
            _audio(root / f"clips/{name}.mp3", rate=32_000)
            lines.append(f'speaker{index % 2}\t{name}.mp3\tab12\t"Quoted," he said {index}\t2')
        (root / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_common_voice_takes_the_parts_that_do_not_overlap_and_their_speakers(tmp_path: Path, capsys):
    corpus, out = _common_voice(tmp_path / "en"), tmp_path / "out"
    command = ["commonvoice", str(corpus), str(out), "--num-jobs", "1", "--strict", "--hold-out-speakers", "1"]
    assert main(command) == 0
    assert "0 findings" in capsys.readouterr().out
    assert _kept(out, "dev") == {
        f"common_voice_en_dev{index}": (f'"Quoted," he said {index}', f"speaker{index % 2}") for index in range(4)
    }
    names = {path.name.removesuffix(".jsonl.gz") for path in out.glob("*.jsonl.gz")}
    assert names == {"train", "train-rest", "train-dev", "dev", "test"}
    assert {speaker for _, speaker in _kept(out, "train-dev").values()} != {
        speaker for _, speaker in _kept(out, "train-rest").values()
    }
    assert main(["commonvoice", str(corpus), str(tmp_path / "other"), "--parts", "validated", "--num-jobs", "1"]) == 0
    assert len(_kept(tmp_path / "other", "validated")) == 4


def test_common_voice_is_normalised_streamed_and_resampled(tmp_path: Path):
    corpus, out = _common_voice(tmp_path / "en", parts=("train",)), tmp_path / "out"
    command = ["commonvoice", str(corpus), str(out), "--num-jobs", "1", "--normalise", "--alphabet", "--shar"]
    assert main([*command, "--shard-size", "2"]) == 0
    assert _kept(out, "train")["common_voice_en_train3"] == ("QUOTED HE SAID THREE", "speaker1")
    assert (out / "train.words.txt").read_text().split() == "HE ONE QUOTED SAID THREE TWO ZERO".split()
    speech = Speech(str(out), ["train"], shar=True, max_duration=0.2)
    speech.setup("fit")
    lengths = {batch.ids[0]: int(batch.lengths[0]) for batch in islice(iter(speech.train_dataloader()), 30)}
    assert lengths == {f"common_voice_en_train{index}": 3_200 for index in range(4)}


def test_every_fault_of_a_table_is_a_finding_with_its_line(tmp_path: Path, capsys):
    corpus, out = _common_voice(tmp_path / "en", parts=("train",)), tmp_path / "out"
    table = corpus / "train.tsv"
    lines = [
        b"s\tmissing.mp3\tx\tText\t1",
        b"s\t../../secret.mp3\tx\tText\t1",
        b"s\t/etc/passwd\tx\tText\t1",
        b"s\tcommon_voice_en_train0.mp3\tx\tTwice\t1",
        b"s\tshort.mp3",
        b"s\ttoo.mp3\tx\tmany\t1\tfields",
        b"s\tempty.mp3\tx\t \t1",
        b"s\t\tx\tNo name\t1",
        b"s\tlatin.mp3\tx\tcaf\xe9\t1",
        b"",
        b"s\tno_ending\tx\tText\xe2\x80\xa8with\xc2\xa0space\t1",
    ]
    _audio(corpus / "clips/no_ending.mp3", rate=32_000)
    content = b"\xef\xbb\xbf" + table.read_bytes() + b"\n".join(lines)
    table.write_bytes(content.replace(b"\n", b"\r\n"))
    assert main(["commonvoice", str(corpus), str(out), "--num-jobs", "1"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "clips/missing.mp3: cannot be opened (No such file or directory)",
        "train.tsv: line 7: names the audio '../../secret.mp3', which lies outside of the corpus",
        "train.tsv: line 8: names the audio '/etc/passwd.mp3', which lies outside of the corpus",
        "train.tsv: line 9: the id common_voice_en_train0 occurs twice",
        "train.tsv: line 10 has 2 fields, the header has 5",
        "train.tsv: line 11 has 6 fields, the header has 5",
        "train.tsv: line 12: empty has an empty transcript",
        "train.tsv: line 13: names no audio",
        "train.tsv: line 14 is not UTF-8",
        "9 findings, 9 utterances left out",
    ):
        assert line in shown, shown
    assert _kept(out, "train").keys() == {*(f"common_voice_en_train{index}" for index in (1, 2, 3)), "no_ending"}
    assert _kept(out, "train")["no_ending"] == ("Text with space", "s")


def test_vox_populi_takes_normalised_texts_audio_by_year_and_speakers_where_they_are_known(tmp_path: Path, capsys):
    corpus, out = tmp_path / "transcribed_data/en", tmp_path / "out"
    lines = ["id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender"]
    for index, ending in enumerate((".ogg", ".ogg", ".flac", ".OGG")):
        utterance = f"20180613-0900-PLENARY-15-en_20180613-17:02:3{index}"
        speaker = "None" if index == 1 else index
        lines.append(f"{utterance}\tRaw!\tnormal {index}\t{speaker}\ttrain\tmale")
        _audio(corpus / f"2018/{utterance}{ending}")
    (corpus / "asr_train.tsv").write_text("\n".join(lines))
    assert main(["voxpopuli", str(corpus), str(out), "--num-jobs", "1"]) == 0
    kept = list(_kept(out, "train").items())
    assert sorted(kept) == [
        (
            f"20180613-0900-PLENARY-15-en_20180613-17:02:3{index}",
            (f"normal {index}", None if index == 1 else str(index)),
        )
        for index in range(3)
    ]
    assert "0613-17:02:33.ogg: cannot be opened" in capsys.readouterr().out
    assert main(["voxpopuli", str(corpus), str(out), "--num-jobs", "1", "--hold-out-speakers", "1"]) == 0
    assert "17:02:31 has no speaker, so it can be on neither side of --hold-out-speakers" in capsys.readouterr().out
    assert len(_kept(out, "train-dev")) == len(_kept(out, "train-rest")) == 1


def test_multilingual_librispeech_is_a_layout_and_is_named_where_librispeech_was_asked_for(tmp_path: Path, capsys):
    corpus = tmp_path / "mls_polish"
    for part, number, ending in (("train", 1, ".opus"), ("dev", 3, ".flac")):
        lines = []
        for index in range(4):
            utterance = f"{number + index % 2}_77_{index:06d}"
            _audio(corpus / part / f"audio/{number + index % 2}/77/{utterance}{ending}")
            lines.append(f"{utterance}\tżółta łódź {index}\n")
        (corpus / part / "transcripts.txt").write_text("".join(lines))
        (corpus / part / "segments.txt").write_text("no transcript\n")
    command = ["mls", str(corpus), str(tmp_path / "out"), "--num-jobs", "1", "--hold-out-speakers", "1", "--strict"]
    assert main(command) == 0
    assert _kept(tmp_path / "out", "dev")["4_77_000003"] == ("żółta łódź 3", "4")
    assert len(_kept(tmp_path / "out", "train-rest")) == 2
    assert main(["librispeech", str(corpus), str(tmp_path / "other")]) == 2
    assert "which `prepare mls` reads" in capsys.readouterr().err
    assert main(["mls", str(tmp_path), str(tmp_path / "other"), "--num-jobs", "1"]) == 1
    assert f"name {corpus} as the corpus" in capsys.readouterr().out


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_of_ones_own_has_any_delimiter_and_columns_in_any_order(delimiter: str, encoding: str, tmp_path: Path):
    for name in ("a.mp3", "b.OGG", "c.wav"):
        _audio(tmp_path / "my corpus/audio" / name)
    quote = "" if delimiter == "\t" else '"'
    rows = [
        ["text", "length", "path", "speaker", "part"],
        [f"{quote}One, two; three|four{quote}", "1", "audio/a.mp3", "anna", "train"],
        ["Naïve", "2", "audio/b.OGG", "", "train"],
        ["Four", "3", str(tmp_path / "my corpus/audio/c.wav"), "bert", "dev"],
    ]
    table = tmp_path / "my corpus/all.csv"
    table.write_bytes("\r\n".join(delimiter.join(row) for row in rows).encode(encoding))
    assert main(["csv", str(table), str(tmp_path / "out"), "--num-jobs", "1", "--strict"]) == 0
    texts = _kept(tmp_path / "out", "train")
    assert texts["audio-a"] == ("One, two; three|four", "anna")
    assert texts["audio-b"] == ("Naïve", None)
    assert _kept(tmp_path / "out", "dev") == {"audio-c": ("Four", "bert")}


def test_columns_of_other_names_and_a_root_of_ones_own(tmp_path: Path, capsys):
    _audio(tmp_path / "disk/a.mp3")
    table = tmp_path / "lists/mine.tsv"
    table.parent.mkdir()
    table.write_text("utt\tfile\ttranscript\nu1\ta.mp3\thello\n")
    command = ["csv", str(table), str(tmp_path / "out"), "--num-jobs", "1"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "has no column 'path', 'text'; it has 'utt', 'file', 'transcript'; options such as --text-column" in error
    columns = ["--path-column", "file", "--text-column", "transcript", "--id-column", "utt"]
    assert main([*command, *columns, "--root", str(tmp_path / "disk")]) == 0
    assert _kept(tmp_path / "out", "mine") == {"u1": ("hello", None)}
    assert main([*command, *columns, "--speaker-column", "who"]) == 2
    assert "has no column 'who'" in capsys.readouterr().err
    assert main([*command, *columns, "--root", str(tmp_path / "disk"), "--hold-out-speakers", "1"]) == 2
    assert "no part of mine begins with 'train'" in capsys.readouterr().err


def test_quotes_hold_delimiters_and_lines_and_an_open_one_swallows_nothing(tmp_path: Path, capsys):
    for name in "abcdef":
        _audio(tmp_path / f"{name}.wav")
    (tmp_path / "t.csv").write_text(
        "path,text\n"
        'a.wav,"One, ""two"""\n'
        'b.wav,"Three\nfour"\n'
        'c.wav,"never closed\n'
        "d.wav,five, six\n"
        'e.wav,say "seven"\n'
        "\n"
        "f.wav,eight,\n"
    )
    assert main(["csv", str(tmp_path / "t.csv"), str(tmp_path / "out"), "--num-jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "t.csv: line 5 opens a quote that is not closed" in shown
    assert "t.csv: line 6 has 3 fields, the header has 2" in shown
    assert {utterance: text for utterance, (text, _) in _kept(tmp_path / "out", "t").items()} == {
        "a": 'One, "two"',
        "b": "Three four",
        "e": 'say "seven"',
        "f": "eight",
    }


def test_links_out_of_the_folder_and_parts_that_are_no_names_are_findings(tmp_path: Path, capsys):
    _audio(tmp_path / "secret.wav")
    folder = tmp_path / "mine"
    _audio(folder / "a.wav")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "t.csv").write_text(
        "path,text,part\na.wav,one,train\nlink.wav,two,train\na.wav,three,../up\na.wav,four,.hidden\nb.wav,five,dev\n"
    )
    assert main(["csv", str(folder / "t.csv"), str(tmp_path / "out"), "--num-jobs", "1"]) == 1
    shown = capsys.readouterr().out
    for line in (
        "link.wav: is a link that leaves the corpus",
        "t.csv: line 4 names the part '../up'",
        "t.csv: line 5 names the part '.hidden'",
        "b.wav: cannot be opened (No such file or directory)",
        "dev: holds no good utterance: no manifest is written",
        "5 findings, 4 utterances left out",
    ):
        assert line in shown, shown
    assert _kept(tmp_path / "out", "train") == {"a": ("one", None)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["commonvoice", "nowhere"], "the corpus nowhere is not a folder"),
        (["commonvoice", "."], "has no table of train, dev, test; name one of bare, en, odd"),
        (["commonvoice", "en", "--parts", "other"], "parts: other not in en; it has train"),
        (["commonvoice", "bare"], "the corpus bare has no folder clips"),
        (["commonvoice", "odd"], "odd/train.tsv: has no column 'sentence'; it has 'client_id', 'path'"),
        (["voxpopuli", "en"], "has no table of train, dev, test; it has no table"),
        (["csv", "en"], "en is not a file"),
        (["csv", "empty.csv"], "empty.csv: has no header"),
        (["csv", "header.csv"], "header.csv has no lines after its header"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(arguments, message, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _common_voice(Path("en"), parts=("train",))
    for name, columns in (("bare", "client_id\tpath\tsentence"), ("odd", "client_id\tpath")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text(f"{columns}\n")
    (tmp_path / "odd/clips").mkdir()
    (tmp_path / "empty.csv").write_text("\n")
    (tmp_path / "header.csv").write_text("path,text\n")
    kind, corpus, *rest = arguments
    assert main([kind, corpus, "out", *rest]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
