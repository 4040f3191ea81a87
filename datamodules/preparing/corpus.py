"""From the parts that a layout found to manifests and lists of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.cut import MonoCut

from datamodules.cut_fields import FieldError, checked_cut
from datamodules.manifest import SUFFIX, write_corpus_root, write_manifest
from datamodules.preparing.hold_out import check_hold_out, held_out_parts, is_training
from datamodules.preparing.normalisation import Normaliser
from datamodules.preparing.parallel import progress_bar
from datamodules.preparing.parts import Finding, Part
from datamodules.preparing.shards import write_shards
from datamodules.preparing.verification import verify_audio
from robust_asr.storage.audio import Header
from robust_asr.storage.files import clean_leftovers, written_whole
from robust_asr.text import LIBRISPEECH_CHARACTERS, CharacterTokenizer, normalize
from robust_asr.text.terminal import say


def write_corpus(
    corpus: Path,
    parts: Sequence[Part],
    out: Path,
    *,
    hold_out_speakers: int = 0,
    seed: int = 0,
    shar: bool = False,
    shard_size: int = 500,
    alphabet: str | None = None,
    normalise: bool = False,
    num_jobs: int = 2,
) -> list[Finding]:
    """Manifests of the parts of a corpus, every sample read once.

    Args:
        corpus: the folder that the audio of every part lies in.
        out: folder for ``<part>.jsonl.gz``, ``<part>.words.txt`` (its distinct words, a lexicon for searches),
            ``<part>.phrases.txt`` (its distinct transcripts, targets of attacks) and ``corpus.json``.
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
    if normalise:
        normaliser = Normaliser(tokenizer.characters)
        for part in parts:
            _normalise(part, normaliser)
    if alphabet is not None:
        for part in parts:
            part.findings.extend(_unwritable(part, tokenizer))
    if hold_out_speakers:
        check_hold_out(parts, hold_out_speakers)
    write_corpus_root(out, corpus)
    clean_leftovers(out)
    # Shards take as long to write as audio to read, and a part of which speakers are set aside is written twice.
    writes = {part.name: (1 + (bool(hold_out_speakers) and is_training(part))) * shar for part in parts}
    work = sum(len(part.without_findings()) * (1 + writes[part.name]) for part in parts)
    with progress_bar("reading and writing" if shar else "reading", total=work, unit="utterances") as progress:
        for part in parts:
            expected = len(part.without_findings())
            verify_audio(part, num_jobs=num_jobs, progress=progress)
            cuts = _cuts(part)
            progress.total -= (expected - len(cuts)) * writes[part.name]
            if not cuts:
                if part.is_asked_for:
                    message = "holds no good utterance: no manifest is written"
                    part.findings.append(Finding(part.name, message, is_fatal=True))
                continue
            written = {part.name: cuts}
            if hold_out_speakers and is_training(part):
                written |= held_out_parts(part, cuts, hold_out_speakers, seed=seed)
            for name, chosen in written.items():
                if shar:
                    write_shards(out, name, corpus, chosen, shard_size=shard_size, progress=progress)
                hours = sum(cut.duration for cut in chosen) / 3600
                progress.write(f"{name}: {len(chosen)} utterances, {hours:.2f} hours")
                if left_out := _write_part(out, name, chosen, tokenizer):
                    progress.write(
                        f"{name}.words.txt: without {left_out} words that {tokenizer.characters!r} cannot write; "
                        "--alphabet names other characters"
                    )
    return [finding for part in parts for finding in part.findings]


def _cuts(part: Part) -> list[MonoCut]:
    """The cuts of the good utterances, in an order that mixes speakers."""
    cuts = []
    for utterance, header in part.headers.items():
        source = Path(part.relative(part.audio[utterance])).as_posix()
        cut = _cut(utterance, part.texts[utterance], part.speakers.get(utterance), source, header)
        try:
            # What the loader will refuse is found here, and not by it.
            checked_cut(cut.to_dict(), part.root)
        except FieldError as error:
            part.findings.append(Finding(source, f"field {error.field!r} {error.message}", utterance))
        else:
            cuts.append(cut)
    # By a hash, so in no speaker's order: a reader with a bounded buffer then meets all speakers early.
    return sorted(cuts, key=lambda cut: blake2b(cut.id.encode()).digest())


def _cut(utterance: str, text: str, speaker: str | None, source: str, header: Header) -> MonoCut:
    seconds = header.num_samples / header.sample_rate
    audio = AudioSource("file", [0], source)
    recording = Recording(utterance, [audio], header.sample_rate, header.num_samples, seconds)
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
