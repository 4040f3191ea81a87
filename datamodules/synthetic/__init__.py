"""The embedded corpus: English spoken by espeak-ng, written in LibriSpeech's layout."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import soundfile

from datamodules.preparing.librispeech import prepare_corpus
from datamodules.preparing.parallel import progress_bar
from datamodules.speech import Speech
from datamodules.synthetic.espeak import SAMPLE_RATE as ESPEAK_RATE
from datamodules.synthetic.espeak import Espeak
from datamodules.synthetic.sentences import PARTS, Domain, sentence, spoken
from datamodules.synthetic.studio import SAMPLE_RATE, recorded
from datamodules.synthetic.voices import Speaker, speakers
from robust_asr.storage.files import folder_written_whole

AUDIO_FOLDER = "audio"
SETTINGS_FILE = "synthetic.json"


@dataclass(frozen=True)
class Settings:
    """Equal settings make byte-identical files. A twentieth of the utterances is for dev, one for test.

    Errors: ValueError names the field.
    """

    num_utterances: int = 2000
    num_voices: int = 60
    seed: int = 0
    domain: Domain = "everything"
    # Counted up when a change of the words, the voices or the studio changes the speech of a seed.
    version: int = 1

    def __post_init__(self) -> None:
        if self.num_utterances < 20:
            raise ValueError(f"num_utterances must be at least 20, found {self.num_utterances}")
        if self.domain not in get_args(Domain):
            raise ValueError(f"domain must be one of {', '.join(get_args(Domain))}, found {self.domain!r}")
        speakers(self.num_voices, seed=self.seed)

    def part_sizes(self) -> dict[str, int]:
        twentieth = self.num_utterances // 20
        return {"train": self.num_utterances - 2 * twentieth, "dev": twentieth, "test": twentieth}


@dataclass(frozen=True)
class _Session:
    """What one speaker says, from a fresh start of the synthesiser on: the unit of reproducible work."""

    speaker: Speaker
    lines: tuple[tuple[str, str], ...]
    seed: int
    folder: str


def make_corpus(out: Path, settings: Settings, *, num_jobs: int | None = None) -> None:
    """Writes the corpus, its manifests and its settings into ``out``, whole or not at all.

    A folder that already holds the corpus of equal settings is left as it is.

    Errors: ValueError if ``out`` holds something else.
    """
    if out.exists() and any(out.iterdir()):
        _check_settings(out, settings)
        return
    num_jobs = num_jobs or os.cpu_count() or 1
    with folder_written_whole(out) as temporary:
        _record(temporary / AUDIO_FOLDER, settings, num_jobs=num_jobs)
        findings = prepare_corpus(temporary / AUDIO_FOLDER, temporary, parts=PARTS, num_jobs=num_jobs)
        if findings:
            raise RuntimeError(f"the embedded corpus came out wrong: {findings[0]}")
        (temporary / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n")


def _check_settings(out: Path, settings: Settings) -> None:
    try:
        spoken_with = json.loads((out / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        raise ValueError(f"{out} exists and is not a synthetic corpus; give a folder of its own") from None
    if spoken_with != asdict(settings):
        raise ValueError(
            f"{out} holds a synthetic corpus of {spoken_with}, but {asdict(settings)} is asked for; give another folder"
        )


def _record(root: Path, settings: Settings, *, num_jobs: int) -> None:
    sessions = list(_sessions(root, settings))
    # A forked process for each session: espeak-ng speaks reproducibly only from its start on.
    with _ended_by_sigterm(), multiprocessing.get_context("fork").Pool(num_jobs, maxtasksperchild=1) as pool:
        done = pool.imap_unordered(_record_session, sessions, chunksize=1)
        with progress_bar("speaking", total=settings.num_utterances, unit="utterances") as progress:
            for num_utterances in done:
                progress.update(num_utterances)
        pool.close()
        pool.join()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends this process and all that it forks, as a pool ends its processes when something fails.

    A handler of a training run is inherited otherwise: a process that is just starting then survives, and the pool waits for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def _sessions(root: Path, settings: Settings) -> Iterator[_Session]:
    everyone = speakers(settings.num_voices, seed=settings.seed)
    for part, size in settings.part_sizes().items():
        members = [speaker for speaker in everyone if speaker.part == part]
        for index, speaker in enumerate(members):
            numbers = range(index, size, len(members))
            lines = tuple(
                (
                    f"{speaker.name}-1-{number:06d}",
                    sentence(Random(f"text-{settings.seed}-{part}-{number}"), part, domain=settings.domain),
                )
                for number in numbers
            )
            if lines:
                yield _Session(speaker, lines, settings.seed, str(root / part / speaker.name / "1"))


def _record_session(session: _Session) -> int:
    espeak = Espeak()
    folder = Path(session.folder)
    folder.mkdir(parents=True)
    for utterance, text in session.lines:
        random = Random(f"manner-{session.seed}-{utterance}")
        speech = espeak.say(
            _paced(spoken(text), random),
            voice=session.speaker.voice,
            rate=session.speaker.rate + random.randint(-20, 20),
            pitch=session.speaker.pitch + random.randint(-5, 5),
            pitch_range=session.speaker.pitch_range + random.randint(-10, 10),
        )
        generator = np.random.default_rng(random.getrandbits(64))
        soundfile.write(
            folder / f"{utterance}.flac", recorded(speech, ESPEAK_RATE, generator), SAMPLE_RATE, subtype="PCM_16"
        )
    transcript = folder / f"{session.speaker.name}-1.trans.txt"
    transcript.write_text("".join(f"{utterance} {text}\n" for utterance, text in session.lines))
    return len(session.lines)


def _paced(text: str, random: Random) -> str:
    """Some speakers pause between words, as people do who spell or dictate."""
    pause = random.choice(("", "", "", ","))
    return " ".join(f"{word}{pause}" for word in text.split())


class Synthetic(Speech):
    """The embedded corpus as a ``Speech``; it is spoken into ``manifests`` if it is not there yet.

    Args:
        manifests: folder of the corpus.
        num_utterances: in all parts together.
        num_voices: speakers in all parts together.
        corpus_seed: of words, voices and rooms.
        domain: ``everything``, or ``numbers`` only: digits and whole numbers, which a small model learns in minutes.
        others: the other arguments of ``Speech``.
    """

    def __init__(
        self,
        manifests: str = "data/synthetic",
        train: list[str] | None = None,
        validate: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        *,
        num_utterances: int = 2000,
        num_voices: int = 60,
        corpus_seed: int = 0,
        domain: Domain = "everything",
        **others: Any,
    ) -> None:
        super().__init__(
            manifests,
            train if train is not None else ["train"],
            validate if validate is not None else ["dev"],
            test if test is not None else ["test"],
            predict,
            **others,
        )
        self.settings = Settings(num_utterances=num_utterances, num_voices=num_voices, seed=corpus_seed, domain=domain)

    def prepare_data(self) -> None:
        """Speaks the corpus if it is missing: Lightning calls this in one process of each machine."""
        make_corpus(Path(self.manifests), self.settings)
