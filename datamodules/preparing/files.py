"""The files of one part of a corpus: transcripts and audio, links entered that stay in the corpus, the others named."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# The first is taken where a recording lies there in several formats.
AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".oga", ".mp3")
# Endings of audio that is named and not read.
OTHER_AUDIO_SUFFIXES = tuple(
    ".m4a .mp4 .aac .wma .webm .amr .aif .aiff .aifc .caf .au .snd .sph .nist .w64 .rf64 .raw".split()
)
# What operating systems and storage leave in folders; names that begin with a dot are passed over too.
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


@dataclass
class Files:
    """What lies below the folder of a part. Paths begin with the corpus as it was named, so a linked folder keeps its name.

    Attributes:
        audio: the files that end like audio, by their name without the ending.
        faults: path and what is wrong with it, a part of a sentence.
    """

    transcripts: list[Path] = field(default_factory=list)
    audio: dict[str, list[Path]] = field(default_factory=dict)
    faults: list[tuple[Path, str]] = field(default_factory=list)


def is_audio(path: Path) -> bool:
    return path.suffix.lower() in (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES)


def is_of_the_system(name: str) -> bool:
    """Whether a name is one that an operating system left, and no user's."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def files_below(root: Path, part: str, is_transcript: Callable[[str], bool]) -> Files:
    """Every transcript and audio file of ``root / part``, sorted. Only names are looked at, no file is opened.

    Args:
        is_transcript: of a name in lower case.
    """
    found, real_root, seen = Files(), Path(os.path.realpath(root)), set()
    # Folders first and links after them: what a link leads to may be a folder that is read anyway.
    folders, links = deque([root / part]), deque()
    while folders or links:
        folder, is_link = (folders.popleft(), False) if folders else (links.popleft(), True)
        real = Path(os.path.realpath(folder))
        if not real.is_relative_to(real_root):
            message = f"is a link that leaves the corpus, to {real}; name a folder that holds both, or copy it"
            found.faults.append((folder, message))
        elif real in seen or real_root.is_relative_to(real):
            if is_link:
                found.faults.append((folder, f"is a link to {real}, which is read already"))
        else:
            seen.add(real)
            for entry in _entries(folder, found):
                if entry.is_symlink() and os.path.isdir(entry.path):
                    links.append(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    _add(found, entry, real_root, is_transcript(entry.name.lower()))
    found.transcripts.sort()
    formats = {suffix: number for number, suffix in enumerate(AUDIO_SUFFIXES)}
    for paths in found.audio.values():
        paths.sort(key=lambda path: (formats.get(path.suffix.lower(), len(formats)), path))
    return found


def _entries(folder: Path, found: Files) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not is_of_the_system(entry.name)), key=lambda entry: entry.name
            )
    except OSError as error:
        found.faults.append((folder, f"cannot be opened ({error.strerror})"))
        return []


def _add(found: Files, entry: os.DirEntry, real_root: Path, is_transcript: bool) -> None:
    path = Path(entry.path)
    if not (is_transcript or is_audio(path)):
        return
    if not (os.path.isfile(path) if entry.is_symlink() else entry.is_file(follow_symlinks=False)):
        found.faults.append((path, "is a link to nothing" if entry.is_symlink() else "is not a regular file"))
    elif is_audio(path):
        # Whether a link leaves the corpus is seen when it is read, where the utterance is known.
        found.audio.setdefault(path.stem, []).append(path)
    elif entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(real_root):
        found.faults.append((path, "is a link that leaves the corpus"))
    else:
        found.transcripts.append(path)
