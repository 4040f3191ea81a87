"""Every transcript and every sample of a corpus is read once; what is wrong with a file is a finding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from datamodules.preparing.parallel import mapped
from robust_asr.storage.audio import SAMPLE_RATES, Header, read_audio, read_header

AUDIO_SUFFIXES = (".flac", ".wav")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file. Where it names an utterance, the utterance is left out of the manifest."""

    path: str
    message: str
    utterance: str | None = None

    def __str__(self) -> str:
        line = f"{self.path}: {self.message}"
        return "".join(character if character.isprintable() else "?" for character in line)


@dataclass
class Part:
    """One folder of a corpus, with the findings about it.

    Attributes:
        texts: text of each good utterance.
        headers: header of its audio.
        transcripts: the file that each utterance is transcribed in, relative to the root.
    """

    root: Path
    name: str
    texts: dict[str, str] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def audio(self, utterance: str) -> Path:
        """Where LibriSpeech keeps the audio of an utterance: ``speaker/chapter/speaker-chapter-number.flac``."""
        return self.root.joinpath(self.name, *utterance.split("-")[:-1], f"{utterance}.flac")

    def without_findings(self) -> list[str]:
        """The utterances in which nothing wrong has been found yet."""
        bad = {finding.utterance for finding in self.findings}
        return [utterance for utterance in self.texts if utterance not in bad]

    def relative(self, path: Path) -> str:
        return os.path.relpath(path, self.root)


def transcribed_part(root: Path, name: str) -> Part:
    """Reads every transcript of a part; its audio is looked for, and not opened."""
    part = Part(root, name)
    _read_transcripts(part)
    part.findings.extend(_audio_without_transcript(part))
    return part


def verify_audio(part: Part, *, num_jobs: int, progress: tqdm) -> None:
    """Reads every sample of a part, and leaves out the utterances with a finding."""
    _read_audio(part, num_jobs, progress)
    left_out = {finding.utterance for finding in part.findings}
    for utterance in left_out & part.texts.keys():
        del part.texts[utterance]
        part.headers.pop(utterance, None)
    part.findings.extend(_unusual_rates(part))


def _read_transcripts(part: Part) -> None:
    for path in sorted((part.root / part.name).rglob("*.trans.txt")):
        name = part.relative(path)
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if finding := _transcript_finding(part, name, f"line {number}", line):
                part.findings.append(finding)


def _transcript_finding(part: Part, name: str, where: str, line: bytes) -> Finding | None:
    try:
        utterance, _, text = line.decode().strip().partition(" ")
    except UnicodeDecodeError:
        return Finding(name, f"{where} is not UTF-8")
    if not utterance:
        return Finding(name, f"{where} is empty")
    known = utterance in part.transcripts
    part.transcripts[utterance] = name
    part.texts[utterance] = text.strip()
    if known:
        return Finding(name, f"{where}: the id {utterance} occurs twice", utterance)
    if not text.strip():
        return Finding(name, f"{where}: {utterance} has an empty transcript", utterance)
    if "-" not in utterance or "/" in utterance or ".." in utterance.split("-") or not utterance.isprintable():
        return Finding(name, f"{where}: the id {utterance!r} is not speaker-chapter-number", utterance)
    if not part.audio(utterance).is_file():
        return Finding(
            part.relative(part.audio(utterance)), f"{name} has a transcript, but there is no audio", utterance
        )
    return None


def _audio_without_transcript(part: Part) -> Iterator[Finding]:
    for path in sorted((part.root / part.name).rglob("*")):
        if path.suffix in AUDIO_SUFFIXES and path.stem not in part.transcripts:
            yield Finding(part.relative(path), "there is audio, but no transcript")


def _read_audio(part: Part, num_jobs: int, progress: tqdm) -> None:
    utterances = part.without_findings()
    read = mapped(
        lambda utterance: _audio_header(part, part.audio(utterance)), utterances, num_jobs=num_jobs, progress=progress
    )
    for utterance, result in zip(utterances, read, strict=True):
        if isinstance(result, Header):
            part.headers[utterance] = result
        else:
            part.findings.append(Finding(part.relative(part.audio(utterance)), result, utterance))


def _audio_header(part: Part, path: Path) -> Header | str:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(part.root)):
        return "is a link that leaves the corpus"
    try:
        header = read_header(path)
        if header.num_samples == 0:
            return "has no samples"
        if header.sample_rate not in SAMPLE_RATES:
            return f"has the odd rate {header.sample_rate}; accepted are {', '.join(map(str, SAMPLE_RATES))}"
        read_audio(path, sample_rate=header.sample_rate, num_samples=header.num_samples)
    except ValueError as error:
        return str(error)
    return header


def _unusual_rates(part: Part) -> Iterator[Finding]:
    rates = Counter(header.sample_rate for header in part.headers.values())
    if len(rates) > 1:
        ((usual, _),) = rates.most_common(1)
        for utterance, header in part.headers.items():
            if header.sample_rate != usual:
                # The finding names no utterance, so that it is kept: the loader resamples it.
                yield Finding(part.relative(part.audio(utterance)), f"has rate {header.sample_rate}, most have {usual}")
