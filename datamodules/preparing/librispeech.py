"""LibriSpeech's layout, and that of Multilingual LibriSpeech: parts, speakers, chapters or books, and transcripts of ids."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.preparing.corpus import write_corpus
from datamodules.preparing.files import AUDIO_SUFFIXES, Files, files_below, is_of_the_system
from datamodules.preparing.parts import Finding, Part
from datamodules.preparing.text_files import text_lines

_ACCEPTED = "FLAC, WAV, Opus, Ogg Vorbis and MP3"


@dataclass(frozen=True)
class Layout:
    """Where the files of a corpus lie.

    Attributes:
        transcripts: names of transcripts, in words.
        is_transcript: of a lower-case name.
        audio_folder: between a part and its speakers.
        separator: between the speaker, the chapter and the number in an id.
    """

    transcripts: str
    is_transcript: Callable[[str], bool]
    audio_folder: tuple[str, ...]
    separator: str

    def folders(self, utterance: str) -> list[str]:
        """Where the audio of an utterance lies below its part: ``speaker/chapter`` of ``speaker-chapter-number``."""
        return [*self.audio_folder, *utterance.split(self.separator)[:-1]]

    def folder(self, part: Part, utterance: str) -> Path:
        return part.root.joinpath(part.name, *self.folders(utterance))

    def is_id(self, utterance: str) -> bool:
        names = utterance.split(self.separator)
        is_one_name = "/" not in utterance and not {"", ".", ".."} & set(names[:-1])
        return len(names) > 1 and is_one_name and utterance.isprintable()


LIBRISPEECH = Layout("*.trans.txt", lambda name: name.endswith(".trans.txt"), (), "-")
MULTILINGUAL = Layout("transcripts.txt", lambda name: name == "transcripts.txt", ("audio",), "_")


def prepare_corpus(
    corpus: Path, out: Path, *, parts: Sequence[str] | None = None, layout: Layout = LIBRISPEECH, **settings: Any
) -> list[Finding]:
    """Manifests of a folder with parts, each ``speaker/chapter/*.flac`` (or another format) and ``*.trans.txt``.

    Args:
        parts: names of folders; by default every folder that holds a transcript.
        settings: of ``corpus.write_corpus``.
    """
    return write_corpus(corpus, read_parts(corpus, parts, layout), out, **settings)


def read_parts(corpus: Path, names: Sequence[str] | None, layout: Layout = LIBRISPEECH) -> list[Part]:
    """The parts that are asked for, or all that hold a transcript; a part that holds none is named where it has findings."""
    if not corpus.is_dir():
        raise ValueError(f"the corpus {corpus} is not a folder")
    folders = sorted(path.name for path in corpus.iterdir() if path.is_dir() and not is_of_the_system(path.name))
    files = {
        name: files_below(corpus, name, layout.is_transcript)
        for name in dict.fromkeys(names or folders)
        if name in folders
    }
    holding = [name for name, found in files.items() if found.transcripts or found.faults]
    if unknown := sorted(set(names or ()) - set(holding)):
        there = [name for name in folders if files_below(corpus, name, layout.is_transcript).transcripts]
        raise ValueError(f"parts: {', '.join(unknown)} not in {corpus}; it has {', '.join(there) or 'none'}")
    if not holding:
        raise ValueError(
            f"the corpus {corpus} has no folder with a {layout.transcripts} below it{_hint(corpus, layout)}"
        )
    parts = [_read_part(corpus, name, files[name], layout) for name in holding]
    if names is None and any(part.transcripts for part in parts):
        for part in parts:
            # A folder beside the parts may hold nothing but what cannot be entered.
            part.is_asked_for = bool(part.transcripts)
    return parts


def _hint(corpus: Path, layout: Layout) -> str:
    if layout is LIBRISPEECH and any(corpus.glob("*/transcripts.txt")):
        return "; its transcripts.txt are those of Multilingual LibriSpeech, which `prepare mls` reads"
    if layout is MULTILINGUAL and any(corpus.glob("*/*/*/*.trans.txt")):
        return "; its *.trans.txt are those of LibriSpeech, which `prepare librispeech` reads"
    return ""


def _read_part(root: Path, name: str, files: Files, layout: Layout) -> Part:
    """Reads every transcript of a part; its audio is looked for, and not opened."""
    part = Part(root, name)
    part.findings.extend(Finding(part.relative(path), fault) for path, fault in files.faults)
    for path in files.transcripts:
        _read_transcript(part, path, layout)
    _find_audio(part, files, layout)
    part.findings.extend(_audio_without_transcript(part, files))
    return part


def _read_transcript(part: Part, path: Path, layout: Layout) -> None:
    name = part.relative(path)
    try:
        for number, line in text_lines(path):
            where = f"line {number}"
            if line is None:
                part.findings.append(Finding(name, f"{where} is not UTF-8"))
            elif words := line.split(maxsplit=1):
                _add(part, words[0], words[1].strip() if len(words) > 1 else "", name, where, layout)
            else:
                part.findings.append(Finding(name, f"{where} is empty"))
    except ValueError as error:
        part.findings.append(Finding(name, str(error)))


def _add(part: Part, utterance: str, text: str, name: str, where: str, layout: Layout) -> None:
    if not part.add(utterance, text, transcript=name, where=where):
        return
    if layout.is_id(utterance):
        part.speakers[utterance] = utterance.split(layout.separator)[0]
    else:
        form = layout.separator.join(("speaker", "chapter", "number"))
        part.findings.append(Finding(name, f"{where}: the id {utterance!r} is not {form}", utterance))


def _find_audio(part: Part, files: Files, layout: Layout) -> None:
    """Gives every good utterance its file, or a finding that says what is there instead."""
    elsewhere: dict[Path, list[str]] = {}
    for utterance in part.without_findings():
        found = files.audio.get(utterance, [])
        here = [path for path in found if path.parent == layout.folder(part, utterance)]
        read = [path for path in here if path.suffix.lower() in AUDIO_SUFFIXES]
        if read:
            part.audio[utterance] = read[0]
            others = (Finding(part.relative(path), f"is not read: {read[0].name} lies beside it") for path in read[1:])
            part.findings.extend(others)
        elif found and not here and (corpus := _corpus_of(part, utterance, found[0], layout)):
            elsewhere.setdefault(corpus, []).append(utterance)
        else:
            part.findings.append(_no_audio(part, utterance, here or found, layout))
    for corpus, utterances in elsewhere.items():
        example = part.relative(files.audio[utterances[0]][0])
        message = f"holds {example}, so {part.root} is not the folder of the parts; name {corpus} as the corpus"
        part.findings.append(Finding(part.name, message, utterances[0], num_others=len(utterances) - 1))
        for utterance in utterances:
            del part.texts[utterance]


def _corpus_of(part: Part, utterance: str, audio: Path, layout: Layout) -> Path | None:
    """The folder in which the audio would lie as ``part/speaker/chapter/file``, if it is another one than the root."""
    above = layout.folders(utterance)
    folders = part.root.resolve().joinpath(part.relative(audio)).parts[:-1]
    if list(folders[-len(above) :]) != above or len(folders) < len(above) + 2:
        return None
    corpus = Path(*folders[: -len(above) - 1])
    return corpus if corpus != part.root.resolve() else None


def _no_audio(part: Part, utterance: str, found: list[Path], layout: Layout) -> Finding:
    transcript = part.transcripts[utterance]
    if not found:
        missing = part.relative(layout.folder(part, utterance) / f"{utterance}.flac")
        return Finding(missing, f"{transcript} has a transcript, but there is no audio", utterance)
    path = found[0]
    if path.parent != layout.folder(part, utterance):
        message = (
            f"lies in another folder than its id says; it belongs into {part.relative(layout.folder(part, utterance))}"
        )
        return Finding(part.relative(path), message, utterance)
    convert = shlex.join(["ffmpeg", "-i", path.name, f"{utterance}.flac"])
    return Finding(part.relative(path), f"is not read; {_ACCEPTED} are, so convert it: {convert}", utterance)


def _audio_without_transcript(part: Part, files: Files) -> Iterator[Finding]:
    for utterance, paths in sorted(files.audio.items()):
        if utterance not in part.transcripts:
            yield from (Finding(part.relative(path), "there is audio, but no transcript") for path in paths)
