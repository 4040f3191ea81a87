"""What a layout knows of a part of a corpus: utterances with text, audio and speaker, and what is wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from robust_asr.storage.audio import Header


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
    """One part of a corpus, with the findings about it.

    Attributes:
        root: the folder of the corpus, which no path leaves.
        is_asked_for: whether it is an error if no good utterance is found; a folder beside the parts may hold none.
        texts: text of each good utterance.
        audio: its file.
        speakers: its speaker, where that is known.
        headers: header of its file.
        transcripts: the file that each utterance is transcribed in, relative to the root.
    """

    root: Path
    name: str
    is_asked_for: bool = True
    texts: dict[str, str] = field(default_factory=dict)
    audio: dict[str, Path] = field(default_factory=dict)
    speakers: dict[str, str] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, utterance: str, text: str, *, transcript: str, where: str) -> bool:
        """One more utterance with its text; whether nothing is wrong with it. ``where`` is its place in the transcript."""
        known = utterance in self.transcripts
        self.transcripts[utterance] = transcript
        self.texts[utterance] = text
        if known:
            self.findings.append(Finding(transcript, f"{where}: the id {utterance} occurs twice", utterance))
        elif not text:
            self.findings.append(Finding(transcript, f"{where}: {utterance} has an empty transcript", utterance))
        return bool(text) and not known

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
