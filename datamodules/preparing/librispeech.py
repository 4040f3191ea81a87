"""Manifests of a folder in LibriSpeech's layout."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from lhotse import CutSet
from lhotse.cut import MonoCut
from lhotse.recipes import librispeech as recipe
from lhotse.utils import fastcopy
from tqdm import tqdm

from datamodules.manifest import SUFFIX, write_corpus_root, write_manifest
from datamodules.preparing.parallel import progress_bar
from datamodules.preparing.verification import Finding, Part, transcribed_part, verify_audio
from robust_asr.storage.files import folder_written_whole, written_whole
from robust_asr.text import normalize

SHARD_FOLDER = "{part}-shar"


def prepare_corpus(
    corpus: Path,
    out: Path,
    *,
    parts: Sequence[str] | None = None,
    hold_out_speakers: int = 0,
    seed: int = 0,
    shar: bool = False,
    shard_size: int = 500,
    num_jobs: int = 2,
) -> list[Finding]:
    """Manifests of a folder in LibriSpeech's layout, every sample read once.

    Args:
        corpus: folder with parts, each ``speaker/chapter/*.flac`` and ``*.trans.txt``.
        out: folder for ``<part>.jsonl.gz``, ``<part>.words.txt`` (its distinct words, a lexicon), ``<part>.phrases.txt``
            (its distinct transcripts, targets of attacks) and ``corpus.json``.
        parts: names of folders; by default every folder that holds a transcript.
        hold_out_speakers: number of speakers that every part whose name begins with ``train`` sets aside:
            ``<part>-dev`` holds them, ``<part>-rest`` the others. The speakers are ``random.Random(seed)``'s sample of
            the sorted names.
        shar: also write shards for streaming, of ``shard_size`` utterances.

    Errors: ValueError names the folder or the part. What is wrong with a single file is a finding; the file is left
    out.
    """
    parts = _checked_parts(corpus, parts)
    if hold_out_speakers and not any(part.startswith("train") for part in parts):
        raise ValueError(f"hold_out_speakers: no part of {', '.join(parts)} begins with 'train'")
    write_corpus_root(out, corpus)
    findings = []
    held = {name: bool(hold_out_speakers) and name.startswith("train") for name in parts}
    # Shards take as long to write as audio to read, and a part of which speakers are set aside is written twice.
    writes = {name: (1 + held[name]) * shar for name in parts}
    transcribed = [transcribed_part(corpus, name) for name in parts]
    work = sum(len(part.without_findings()) * (1 + writes[part.name]) for part in transcribed)
    with progress_bar("reading and writing" if shar else "reading", total=work, unit="utterances") as progress:
        for part in transcribed:
            expected = len(part.without_findings())
            verify_audio(part, num_jobs=num_jobs, progress=progress)
            cuts = _cuts(part, num_jobs=num_jobs)
            progress.total -= (expected - len(cuts)) * writes[part.name]
            findings.extend(part.findings)
            if not cuts:
                findings.append(Finding(part.name, "holds no good utterance: no manifest is written"))
                continue
            written = {part.name: cuts}
            if held[part.name]:
                rest, dev = held_out(cuts, hold_out_speakers, seed=seed)
                written |= {f"{part.name}-rest": rest, f"{part.name}-dev": dev}
            for name, chosen in written.items():
                if shar:
                    folder = out / SHARD_FOLDER.format(part=name)
                    _write_shards(folder, corpus, chosen, shard_size=shard_size, progress=progress)
                _write_part(out, name, chosen)
                progress.write(
                    f"{name}: {len(chosen)} utterances, {sum(cut.duration for cut in chosen) / 3600:.2f} hours"
                )
    return findings


def held_out(cuts: Sequence[MonoCut], num_speakers: int, *, seed: int) -> tuple[list[MonoCut], list[MonoCut]]:
    """Cuts of the other speakers, and of ``num_speakers`` chosen ones."""
    speakers = sorted({cut.supervisions[0].speaker for cut in cuts})
    if not 0 < num_speakers < len(speakers):
        raise ValueError(f"hold_out_speakers must be between 1 and {len(speakers) - 1}, found {num_speakers}")
    chosen = set(random.Random(seed).sample(speakers, num_speakers))
    return (
        [cut for cut in cuts if cut.supervisions[0].speaker not in chosen],
        [cut for cut in cuts if cut.supervisions[0].speaker in chosen],
    )


def _checked_parts(corpus: Path, parts: Sequence[str] | None) -> list[str]:
    if not corpus.is_dir():
        raise ValueError(f"the corpus {corpus} is not a folder")
    there = sorted(path.name for path in corpus.iterdir() if path.is_dir() and next(path.rglob("*.trans.txt"), None))
    if not there:
        raise ValueError(f"the corpus {corpus} has no folder with a *.trans.txt below it")
    if unknown := sorted(set(parts or ()) - set(there)):
        raise ValueError(f"parts: {', '.join(unknown)} not in {corpus}; it has {', '.join(there)}")
    return list(dict.fromkeys(parts)) if parts else there


def _cuts(part: Part, *, num_jobs: int) -> list[MonoCut]:
    """The cuts of the good utterances by lhotse's recipe, in an order that mixes speakers.

    The recipe stops at the first bad file and wants every transcript complete, so it is shown a view of the corpus:
    links to the good audio and transcripts of that audio alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder)
        _write_view(part, view)
        with _without_bars(recipe):
            sets = recipe.prepare_librispeech(view, dataset_parts=[part.name], num_jobs=num_jobs)[part.name]
        supervisions = {supervision.recording_id: supervision for supervision in sets["supervisions"]}
        cuts = []
        for recording in sets["recordings"]:
            header = part.headers[recording.id]
            if (recording.sampling_rate, recording.num_samples) != (header.sample_rate, header.num_samples):
                message = f"is declared with {recording.num_samples} samples, but its header says {header.num_samples}"
                part.findings.append(Finding(part.relative(part.audio(recording.id)), message, recording.id))
                continue
            (source,) = recording.sources
            source.source = Path(os.path.relpath(source.source, view)).as_posix()
            supervision = supervisions[recording.id]
            cuts.append(MonoCut(recording.id, 0.0, recording.duration, 0, [supervision], recording=recording))
    # By a hash, so in no speaker's order: a reader with a bounded buffer then meets all speakers early.
    return sorted(cuts, key=lambda cut: blake2b(cut.id.encode()).digest())


@contextmanager
def _without_bars(module: ModuleType) -> Iterator[None]:
    """lhotse's recipe draws three bars, one within the other, of work that takes no time here."""
    bars, module.tqdm = module.tqdm, partial(tqdm, disable=True)
    try:
        yield
    finally:
        module.tqdm = bars


def _write_view(part: Part, view: Path) -> None:
    (view / part.name).mkdir()
    lines: dict[str, list[str]] = {}
    for utterance, text in part.texts.items():
        lines.setdefault(part.transcripts[utterance], []).append(f"{utterance} {text}\n")
        link = view / part.relative(part.audio(utterance))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.abspath(part.audio(utterance)))
    for name, transcript in lines.items():
        (view / name).write_text("".join(transcript), encoding="utf-8")


def _write_part(out: Path, name: str, cuts: Sequence[MonoCut]) -> None:
    write_manifest(out / f"{name}{SUFFIX}", cuts)
    phrases = sorted({normalize(cut.supervisions[0].text) for cut in cuts})
    words = sorted({word for phrase in phrases for word in phrase.split()})
    for kind, lines in (("words", words), ("phrases", phrases)):
        with written_whole(out / f"{name}.{kind}.txt") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@dataclass
class _Counted:
    """Cuts that are counted as lhotse takes them."""

    cuts: Sequence[MonoCut]
    progress: tqdm

    def __iter__(self) -> Iterator[MonoCut]:
        for cut in self.cuts:
            yield cut
            self.progress.update()


def _write_shards(folder: Path, corpus: Path, cuts: Sequence[MonoCut], *, shard_size: int, progress: tqdm) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with folder_written_whole(folder) as temporary:
        root = corpus.resolve()
        absolute = [fastcopy(cut, recording=cut.recording.with_path_prefix(root)) for cut in cuts]
        CutSet(_Counted(absolute, progress)).to_shar(temporary, fields={"recording": "flac"}, shard_size=shard_size)
