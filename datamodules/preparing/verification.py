"""Every transcript and every sample of a corpus is read once; what is wrong with a file is a finding."""

from __future__ import annotations

import codecs
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from datamodules.preparing.files import AUDIO_SUFFIXES, Files
from datamodules.preparing.parallel import mapped
from robust_asr.storage.audio import SAMPLE_RATES, Header, measured

_MAX_TRANSCRIPT = 2**28
_ACCEPTED = "FLAC, WAV, Opus, Ogg Vorbis and MP3"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file. Where it names an utterance, the utterance is left out of the manifest.

    Attributes:
        num_others: utterances that are left out for it beside the one that it names.
        is_fatal: nothing was written where a manifest was asked for.
    """

    path: str
    message: str
    utterance: str | None = None
    num_others: int = 0
    is_fatal: bool = False

    def __str__(self) -> str:
        line = f"{self.path}: {self.message}"
        return "".join(character if character.isprintable() else "?" for character in line)


@dataclass
class Part:
    """One folder of a corpus, with the findings about it.

    Attributes:
        texts: text of each good utterance.
        audio: its file.
        headers: header of that file.
        transcripts: the file that each utterance is transcribed in, relative to the root.
    """

    root: Path
    name: str
    texts: dict[str, str] = field(default_factory=dict)
    audio: dict[str, Path] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def folder(self, utterance: str) -> Path:
        """Where LibriSpeech keeps the audio of an utterance: ``speaker/chapter`` of ``speaker-chapter-number``."""
        return self.root.joinpath(self.name, *utterance.split("-")[:-1])

    def speakers(self) -> set[str]:
        return {utterance.split("-")[0] for utterance in self.without_findings()}

    def without_findings(self) -> list[str]:
        """The utterances in which nothing wrong has been found yet."""
        bad = {finding.utterance for finding in self.findings}
        return [utterance for utterance in self.texts if utterance not in bad]

    def leave_out(self) -> None:
        """Only utterances without a finding stay."""
        good = set(self.without_findings())
        for utterance in self.texts.keys() - good:
            del self.texts[utterance]
            self.headers.pop(utterance, None)

    def relative(self, path: Path) -> str:
        return os.path.relpath(path, self.root)


def transcribed_part(root: Path, name: str, files: Files) -> Part:
    """Reads every transcript of a part; its audio is looked for, and not opened."""
    part = Part(root, name)
    part.findings.extend(Finding(part.relative(path), fault) for path, fault in files.faults)
    for path in files.transcripts:
        _read_transcript(part, path)
    _find_audio(part, files)
    part.findings.extend(_audio_without_transcript(part, files))
    return part


def verify_audio(part: Part, *, num_jobs: int, progress: tqdm) -> None:
    """Reads every sample of a part, and leaves out the utterances with a finding."""
    _read_audio(part, num_jobs, progress)
    part.leave_out()
    part.findings.extend(_unusual_rates(part))


def _read_transcript(part: Part, path: Path) -> None:
    name = part.relative(path)
    try:
        content = _in_utf8(path)
    except (OSError, ValueError) as error:
        part.findings.append(Finding(name, f"cannot be read ({getattr(error, 'strerror', None) or error})"))
        return
    for number, line in enumerate(content.splitlines(), start=1):
        if finding := _transcript_finding(part, name, f"line {number}", line):
            part.findings.append(finding)


def _in_utf8(path: Path) -> bytes:
    """The content of a transcript; UTF-16 is known by its mark."""
    if path.stat().st_size > _MAX_TRANSCRIPT:
        raise ValueError(f"it is larger than {_MAX_TRANSCRIPT} bytes")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    return content


def _transcript_finding(part: Part, name: str, where: str, line: bytes) -> Finding | None:
    try:
        # A byte-order mark begins a file, and stands within one that was joined of several.
        words = line.decode().replace(_BYTE_ORDER_MARK, "").split(maxsplit=1)
    except UnicodeDecodeError:
        return Finding(name, f"{where} is not UTF-8")
    if not words:
        return Finding(name, f"{where} is empty")
    utterance, text = words[0], words[1].strip() if len(words) > 1 else ""
    known = utterance in part.transcripts
    part.transcripts[utterance] = name
    part.texts[utterance] = text
    if known:
        return Finding(name, f"{where}: the id {utterance} occurs twice", utterance)
    if not text:
        return Finding(name, f"{where}: {utterance} has an empty transcript", utterance)
    if "-" not in utterance or "/" in utterance or ".." in utterance.split("-") or not utterance.isprintable():
        return Finding(name, f"{where}: the id {utterance!r} is not speaker-chapter-number", utterance)
    return None


def _find_audio(part: Part, files: Files) -> None:
    """Gives every good utterance its file, or a finding that says what is there instead."""
    elsewhere: dict[Path, list[str]] = {}
    for utterance in part.without_findings():
        found = files.audio.get(utterance, [])
        here = [path for path in found if path.parent == part.folder(utterance)]
        read = [path for path in here if path.suffix.lower() in AUDIO_SUFFIXES]
        if read:
            part.audio[utterance] = read[0]
            others = (Finding(part.relative(path), f"is not read: {read[0].name} lies beside it") for path in read[1:])
            part.findings.extend(others)
        elif found and not here and (corpus := _corpus_of(part, utterance, found[0])):
            elsewhere.setdefault(corpus, []).append(utterance)
        else:
            part.findings.append(_no_audio(part, utterance, here or found))
    for corpus, utterances in elsewhere.items():
        example = part.relative(files.audio[utterances[0]][0])
        message = f"holds {example}, so {part.root} is not the folder of the parts; name {corpus} as the corpus"
        part.findings.append(Finding(part.name, message, utterances[0], num_others=len(utterances) - 1))
        for utterance in utterances:
            del part.texts[utterance]


def _corpus_of(part: Part, utterance: str, audio: Path) -> Path | None:
    """The folder in which the audio would lie as ``part/speaker/chapter/file``, if it is another one than the root."""
    above = utterance.split("-")[:-1]
    folders = part.root.resolve().joinpath(part.relative(audio)).parts[:-1]
    if list(folders[-len(above) :]) != above or len(folders) < len(above) + 2:
        return None
    corpus = Path(*folders[: -len(above) - 1])
    return corpus if corpus != part.root.resolve() else None


def _no_audio(part: Part, utterance: str, found: list[Path]) -> Finding:
    transcript = part.transcripts[utterance]
    if not found:
        missing = part.relative(part.folder(utterance) / f"{utterance}.flac")
        return Finding(missing, f"{transcript} has a transcript, but there is no audio", utterance)
    path = found[0]
    if path.parent != part.folder(utterance):
        message = f"lies in another folder than its id says; it belongs into {part.relative(part.folder(utterance))}"
        return Finding(part.relative(path), message, utterance)
    convert = shlex.join(["ffmpeg", "-i", path.name, f"{utterance}.flac"])
    return Finding(part.relative(path), f"is not read; {_ACCEPTED} are, so convert it: {convert}", utterance)


def _audio_without_transcript(part: Part, files: Files) -> Iterator[Finding]:
    for utterance, paths in sorted(files.audio.items()):
        if utterance not in part.transcripts:
            yield from (Finding(part.relative(path), "there is audio, but no transcript") for path in paths)


def _read_audio(part: Part, num_jobs: int, progress: tqdm) -> None:
    utterances = part.without_findings()
    read = mapped(
        lambda utterance: _audio_header(part, part.audio[utterance]), utterances, num_jobs=num_jobs, progress=progress
    )
    for utterance, result in zip(utterances, read, strict=True):
        if isinstance(result, Header):
            part.headers[utterance] = result
        else:
            part.findings.append(Finding(part.relative(part.audio[utterance]), result, utterance))


def _audio_header(part: Part, path: Path) -> Header | str:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(part.root)):
        return "is a link that leaves the corpus"
    # Python puts surrogates for the bytes of a name that it cannot decode.
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        return "has a path that is not UTF-8; rename it"
    try:
        header, _ = measured(path, lossy=True)
    except (ValueError, OSError) as error:
        return str(error)
    if header.sample_rate not in SAMPLE_RATES:
        return f"has the odd rate {header.sample_rate}; accepted are {', '.join(map(str, SAMPLE_RATES))}"
    return header


def _unusual_rates(part: Part) -> Iterator[Finding]:
    rates = Counter(header.sample_rate for header in part.headers.values())
    if len(rates) > 1:
        ((usual, _),) = rates.most_common(1)
        for utterance, header in part.headers.items():
            if header.sample_rate != usual:
                # The finding names no utterance, so that it is kept: the loader resamples it.
                yield Finding(part.relative(part.audio[utterance]), f"has rate {header.sample_rate}, most have {usual}")
