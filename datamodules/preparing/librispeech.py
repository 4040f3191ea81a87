"""Manifests of a folder in LibriSpeech's layout."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import soundfile
from lhotse import AudioSource, CutSet, Recording, SupervisionSegment
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy
from tqdm import tqdm

from datamodules.cut_fields import FieldError, checked_cut
from datamodules.manifest import SUFFIX, write_corpus_root, write_manifest
from datamodules.preparing.files import files_below, is_of_the_system
from datamodules.preparing.normalisation import Normaliser
from datamodules.preparing.parallel import progress_bar
from datamodules.preparing.verification import Finding, Part, transcribed_part, verify_audio
from robust_asr.storage.audio import Header, read_audio
from robust_asr.storage.files import folder_written_whole, written_whole
from robust_asr.text import LIBRISPEECH_CHARACTERS, CharacterTokenizer, normalize
from robust_asr.text.terminal import say

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
    alphabet: str | None = None,
    normalise: bool = False,
    num_jobs: int = 2,
) -> list[Finding]:
    """Manifests of a folder in LibriSpeech's layout, every sample read once.

    Args:
        corpus: folder with parts, each ``speaker/chapter/*.flac`` (or ``.wav``) and ``*.trans.txt``.
        out: folder for ``<part>.jsonl.gz``, ``<part>.words.txt`` (its distinct words, a lexicon for searches),
            ``<part>.phrases.txt`` (its distinct transcripts, targets of attacks) and ``corpus.json``.
        parts: names of folders; by default every folder that holds a transcript.
        hold_out_speakers: number of speakers that every part whose name begins with ``train`` sets aside:
            ``<part>-dev`` holds them, ``<part>-rest`` the others. The speakers are ``random.Random(seed)``'s sample of
            the sorted names.
        alphabet: characters that the recogniser writes; an utterance whose text holds others is left out, with a finding.
            By default none is, and only ``<part>.words.txt`` is limited to words that the default alphabet writes.
        normalise: write the texts in that alphabet where that is possible, see ``normalisation.Normaliser``.
        shar: also write shards for streaming, of ``shard_size`` utterances.

    Errors: ValueError names the folder or the part. What is wrong with a single file is a finding; the file is left
    out.
    """
    tokenizer = CharacterTokenizer(LIBRISPEECH_CHARACTERS if alphabet is None else alphabet)
    transcribed = _transcribed(corpus, parts)
    if normalise:
        normaliser = Normaliser(tokenizer.characters)
        for part in transcribed:
            _normalise(part, normaliser)
    if alphabet is not None:
        for part in transcribed:
            part.findings.extend(_unwritable(part, tokenizer))
    if hold_out_speakers:
        _check_hold_out(transcribed, hold_out_speakers)
    write_corpus_root(out, corpus)
    # Shards take as long to write as audio to read, and a part of which speakers are set aside is written twice.
    writes = {part.name: (1 + (bool(hold_out_speakers) and _is_training(part))) * shar for part in transcribed}
    work = sum(len(part.without_findings()) * (1 + writes[part.name]) for part in transcribed)
    with progress_bar("reading and writing" if shar else "reading", total=work, unit="utterances") as progress:
        for part in transcribed:
            expected = len(part.without_findings())
            verify_audio(part, num_jobs=num_jobs, progress=progress)
            cuts = _cuts(part)
            progress.total -= (expected - len(cuts)) * writes[part.name]
            if not cuts and parts is None and not part.transcripts and any(other.transcripts for other in transcribed):
                # A folder beside the parts, in which only something that cannot be entered was found.
                continue
            if not cuts:
                message = "holds no good utterance: no manifest is written"
                part.findings.append(Finding(part.name, message, is_fatal=True))
                continue
            written = {part.name: cuts}
            if hold_out_speakers and _is_training(part):
                written |= _held_out_parts(part, cuts, hold_out_speakers, seed=seed)
            for name, chosen in written.items():
                if shar:
                    folder = out / SHARD_FOLDER.format(part=name)
                    cuts_with_audio = _ShardCuts(corpus.resolve(), chosen, part.headers, progress)
                    _write_shards(folder, cuts_with_audio, shard_size=shard_size)
                hours = sum(cut.duration for cut in chosen) / 3600
                progress.write(f"{name}: {len(chosen)} utterances, {hours:.2f} hours")
                if left_out := _write_part(out, name, chosen, tokenizer):
                    progress.write(
                        f"{name}.words.txt: without {left_out} words that {tokenizer.characters!r} cannot write; "
                        "--alphabet names other characters"
                    )
    return [finding for part in transcribed for finding in part.findings]


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


def _held_out_parts(part: Part, cuts: Sequence[MonoCut], num_speakers: int, *, seed: int) -> dict[str, list[MonoCut]]:
    found = len({cut.supervisions[0].speaker for cut in cuts})
    if found <= num_speakers:
        message = f"has {found} speakers with good utterances: no {part.name}-rest and {part.name}-dev are written"
        part.findings.append(Finding(part.name, message, is_fatal=True))
        return {}
    rest, dev = held_out(cuts, num_speakers, seed=seed)
    return {f"{part.name}-rest": rest, f"{part.name}-dev": dev}


def _check_hold_out(parts: Sequence[Part], num_speakers: int) -> None:
    training = [part for part in parts if _is_training(part)]
    if not training:
        names = ", ".join(part.name for part in parts)
        raise ValueError(f"hold_out_speakers: no part of {names} begins with 'train'")
    for part in training:
        speakers = len(part.speakers())
        if speakers and not 0 < num_speakers < speakers:
            raise ValueError(f"hold_out_speakers must be between 1 and {speakers - 1}, found {num_speakers}")


def _is_training(part: Part) -> bool:
    return part.name.startswith("train")


def _transcribed(corpus: Path, names: Sequence[str] | None) -> list[Part]:
    """The parts that are asked for, or all that hold a transcript; a part that holds none is named where it has findings."""
    if not corpus.is_dir():
        raise ValueError(f"the corpus {corpus} is not a folder")
    folders = sorted(path.name for path in corpus.iterdir() if path.is_dir() and not is_of_the_system(path.name))
    files = {name: files_below(corpus, name) for name in dict.fromkeys(names or folders) if name in folders}
    holding = [name for name, found in files.items() if found.transcripts or found.faults]
    if unknown := sorted(set(names or ()) - set(holding)):
        there = [name for name in folders if files_below(corpus, name).transcripts]
        raise ValueError(f"parts: {', '.join(unknown)} not in {corpus}; it has {', '.join(there) or 'none'}")
    if not holding:
        raise ValueError(f"the corpus {corpus} has no folder with a *.trans.txt below it")
    return [transcribed_part(corpus, name, files[name]) for name in holding]


def _cuts(part: Part) -> list[MonoCut]:
    """The cuts of the good utterances, in an order that mixes speakers."""
    cuts = []
    for utterance, header in part.headers.items():
        source = Path(part.relative(part.audio[utterance])).as_posix()
        cut = _cut(utterance, part.texts[utterance], source, header)
        try:
            # What the loader will refuse is found here, and not by it.
            checked_cut(cut.to_dict(), part.root)
        except FieldError as error:
            part.findings.append(Finding(source, f"field {error.field!r} {error.message}", utterance))
        else:
            cuts.append(cut)
    # By a hash, so in no speaker's order: a reader with a bounded buffer then meets all speakers early.
    return sorted(cuts, key=lambda cut: blake2b(cut.id.encode()).digest())


def _cut(utterance: str, text: str, source: str, header: Header) -> MonoCut:
    seconds = header.num_samples / header.sample_rate
    audio = AudioSource("file", [0], source)
    recording = Recording(utterance, [audio], header.sample_rate, header.num_samples, seconds)
    speaker = utterance.partition("-")[0]
    supervision = SupervisionSegment(utterance, utterance, 0.0, seconds, text=text, speaker=speaker)
    return MonoCut(utterance, 0.0, seconds, 0, [supervision], recording=recording)


def _normalise(part: Part, normaliser: Normaliser) -> None:
    utterances, num_changed = part.without_findings(), 0
    for utterance in utterances:
        text = part.texts[utterance]
        part.texts[utterance] = normaliser(text)
        num_changed += part.texts[utterance] != text
        if not part.texts[utterance]:
            message = f"{utterance} has no words in its text {text!r}"
            part.findings.append(Finding(part.transcripts[utterance], message, utterance))
    say(f"{part.name}: {num_changed} of {len(utterances)} texts were changed")


def _unwritable(part: Part, tokenizer: CharacterTokenizer) -> Iterator[Finding]:
    for utterance in part.without_findings():
        if unwritable := tokenizer.unwritable(part.texts[utterance]):
            message = f"{utterance} has {unwritable}, which the alphabet {tokenizer.characters!r} cannot write"
            yield Finding(part.transcripts[utterance], message, utterance)


def _write_part(out: Path, name: str, cuts: Sequence[MonoCut], tokenizer: CharacterTokenizer) -> int:
    """Writes the manifest and the lists of words and phrases; answers how many words a search could not spell."""
    write_manifest(out / f"{name}{SUFFIX}", cuts)
    phrases = sorted({normalize(cut.supervisions[0].text) for cut in cuts})
    words = {word for phrase in phrases for word in phrase.split()}
    writable = sorted(word for word in words if not tokenizer.unwritable(word))
    for kind, lines in (("words", writable), ("phrases", phrases)):
        with written_whole(out / f"{name}.{kind}.txt") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(words) - len(writable)


@dataclass
class _ShardCuts:
    """Cuts with the absolute paths of their audio, counted as lhotse takes them."""

    root: Path
    cuts: Sequence[MonoCut]
    headers: Mapping[str, Header]
    progress: tqdm

    def __iter__(self) -> Iterator[MonoCut]:
        for cut in self.cuts:
            recording = cut.recording.with_path_prefix(self.root)
            if self.headers[cut.id].is_counted:
                recording = _in_memory(recording, self.headers[cut.id])
            yield fastcopy(cut, recording=recording)
            self.progress.update()


def _in_memory(recording: Recording, header: Header) -> Recording:
    """lhotse reads no FLAC without a length: it gets the same samples in a file that has one."""
    path = Path(recording.sources[0].source)
    samples = read_audio(path, sample_rate=header.sample_rate, num_samples=header.num_samples)
    whole = io.BytesIO()
    soundfile.write(whole, samples, header.sample_rate, format="FLAC", subtype=header.subtype)
    return fastcopy(recording, sources=[AudioSource("memory", [0], whole.getvalue())])


def _write_shards(folder: Path, cuts: _ShardCuts, *, shard_size: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with folder_written_whole(folder) as temporary:
        CutSet(cuts).to_shar(temporary, fields={"recording": "flac"}, shard_size=shard_size)
