"""Audio with texts in whatever form somebody has it, as one part: LibriSpeech's layout, audio with ``.txt`` beside it, a table."""

from __future__ import annotations

from pathlib import Path

from datamodules.preparing import librispeech, own_table
from datamodules.preparing.files import AUDIO_SUFFIXES, files_below
from datamodules.preparing.parts import Finding, Part
from datamodules.preparing.text_files import text_lines

_DEPTHS = {"*/*/*/*.trans.txt": "a corpus", "*/*/*.trans.txt": "a part"}


def read_any(path: Path, name: str) -> Part:
    """One part with every utterance below ``path``.

    Args:
        path: a folder of parts in LibriSpeech's layout, or one such part; a folder of audio files, each with a ``.txt`` of the
            same name beside it; or a table with the columns ``path`` and ``text``.
        name: of the part.

    Errors: ValueError names what holds no utterance. What is wrong with a single file is a finding of the part.
    """
    if path.is_file():
        return _joined(path.parent, own_table.read_parts(path, None), name)
    if not path.is_dir():
        raise ValueError(f"audio: there is no folder and no table {path}")
    for pattern, kind in _DEPTHS.items():
        if any(path.glob(pattern)):
            root, names = (path, None) if kind == "a corpus" else (path.absolute().parent, [path.absolute().name])
            return _joined(root, librispeech.read_parts(root, names), name)
    part = _beside(path.absolute(), name)
    if not part.texts:
        found = f"; the first of {len(part.findings)} faults: {part.findings[0]}" if part.findings else ""
        raise ValueError(
            f"audio: {path} holds neither LibriSpeech's layout nor audio files with a .txt of the same name beside them{found}"
        )
    return part


def _joined(root: Path, parts: list[Part], name: str) -> Part:
    joined = Part(root, name)
    for part in parts:
        joined.findings.extend(part.findings)
        for utterance in part.without_findings():
            if joined.add(utterance, part.texts[utterance], transcript=part.transcripts[utterance], where=part.name):
                joined.audio[utterance] = part.audio[utterance]
                if utterance in part.speakers:
                    joined.speakers[utterance] = part.speakers[utterance]
    return joined


def _beside(root: Path, name: str) -> Part:
    """Audio files with a text beside each. The id is the path below the folder without its ending."""
    part = Part(root, name)
    files = files_below(root.parent, root.name, lambda file: file.endswith(".txt"))
    part.findings.extend(Finding(part.relative(path), fault) for path, fault in files.faults)
    texts = {path.with_suffix(""): path for path in files.transcripts}
    for path in sorted(path for paths in files.audio.values() for path in paths):
        text = texts.get(path.with_suffix(""))
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            part.findings.append(Finding(part.relative(path), f"is not read; {', '.join(AUDIO_SUFFIXES)} are"))
        elif text is None:
            part.findings.append(Finding(part.relative(path), f"there is audio, but no {path.stem}.txt"))
        else:
            _add(part, path, text)
    return part


def _add(part: Part, audio: Path, text: Path) -> None:
    utterance, transcript = "-".join(audio.relative_to(part.root).with_suffix("").parts), part.relative(text)
    try:
        lines = [line for _, line in text_lines(text)]
    except ValueError as error:
        part.findings.append(Finding(transcript, str(error)))
        return
    if None in lines:
        part.findings.append(Finding(transcript, "is not UTF-8"))
    elif part.add(utterance, " ".join(" ".join(lines).split()), transcript=transcript, where=audio.name):
        part.audio[utterance] = audio
