"""Environmental sounds: prepared once as 16 kHz FLAC, so that later only WAV and FLAC are ever opened."""

from __future__ import annotations

from pathlib import Path
from random import Random

import soundfile
import torch
from lhotse import AudioSource, Recording
from lhotse.cut import MonoCut
from torch import Tensor

from datamodules.audio import MAX_SAMPLES, SAMPLE_RATES
from datamodules.collate import Utterances
from datamodules.manifest import SUFFIX, Manifest, write_corpus_root, write_manifest
from datamodules.parallel import mapped
from datamodules.resampling import resample
from datamodules.verification import Finding
from robust_asr.files import folder_written_whole

SAMPLE_RATE = 16_000
NAME = "noise"
AUDIO_FOLDER = "audio"
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".mp3")


class Sounds:
    """The sounds of a folder that ``python -m datamodules.prepare noise`` wrote.

    Args:
        manifests: that folder.
        sample_rate: in hertz, of what is returned.

    Errors: ValueError names the manifest, the sound and the field.
    """

    def __init__(self, manifests: str, *, sample_rate: int = SAMPLE_RATE) -> None:
        self.manifests, self.sample_rate = manifests, sample_rate
        manifest = Manifest(Path(manifests) / f"{NAME}{SUFFIX}", spoken=False)
        self.cuts = sorted(manifest.verified(), key=lambda cut: cut.id)
        self._read = Utterances(sample_rate=sample_rate, cache_bytes=2**28)

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, index: int) -> Tensor:
        """Shape: (T,) float32 in [-1, 1]."""
        return self._read.waveform(self.cuts[index])

    def segment(self, seed: int, num_samples: int) -> Tensor:
        """A stretch of one of the sounds, from anywhere in it and repeated if it is too short; the seed decides.

        Shape: (num_samples,).
        """
        random = Random(seed)
        sound = self[random.randrange(len(self))]
        start = random.randrange(len(sound))
        return sound[(start + torch.arange(num_samples)) % len(sound)]


def prepare_noise(folder: Path, out: Path, *, num_jobs: int = 2) -> list[Finding]:
    """Converts every sound below ``folder`` and writes ``out`` with ``noise.jsonl.gz``, whole or not at all.

    The id of a sound is its path, which in most collections begins with its class.

    Errors: ValueError if ``folder`` holds no sound or ``out`` exists. What is wrong with a single file is a finding.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(SUFFIXES)}")
    named: dict[str, Path] = {}
    findings = []
    for path in paths:
        name = "-".join(path.relative_to(folder).with_suffix("").parts)
        if name in named:
            findings.append(Finding(str(path.relative_to(folder)), f"the id {name} occurs twice", name))
        else:
            named[name] = path
    with folder_written_whole(out) as temporary:
        (temporary / AUDIO_FOLDER).mkdir()
        results = list(
            mapped(
                lambda item: _converted(*item, folder, temporary),
                list(named.items()),
                num_jobs=num_jobs,
                description=NAME,
            )
        )
        findings += [result for result in results if isinstance(result, Finding)]
        cuts = [result for result in results if isinstance(result, MonoCut)]
        write_corpus_root(temporary, temporary / AUDIO_FOLDER)
        write_manifest(temporary / f"{NAME}{SUFFIX}", cuts)
    print(f"{NAME}: {len(cuts)} sounds, {sum(cut.duration for cut in cuts) / 60:.1f} minutes")
    return findings


def _converted(name: str, path: Path, folder: Path, out: Path) -> MonoCut | Finding:
    shown = str(path.relative_to(folder))
    try:
        with soundfile.SoundFile(path) as file:
            if not 0 < file.frames * file.channels <= MAX_SAMPLES or file.samplerate not in SAMPLE_RATES:
                return Finding(
                    shown, f"has {file.frames} samples, {file.channels} channels, rate {file.samplerate}", name
                )
            samples, rate = torch.from_numpy(file.read(dtype="float32", always_2d=True)).mean(1), file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        return Finding(shown, f"cannot be read ({error})", name)
    if not samples.isfinite().all() or not samples.any():
        return Finding(shown, "is silent or not finite", name)
    # Lossy codecs overshoot: scaled down, not clipped.
    samples = resample(samples / samples.abs().max().clamp(min=1.0), rate, SAMPLE_RATE)
    target = out / AUDIO_FOLDER / f"{name}.flac"
    soundfile.write(target, samples.numpy(), SAMPLE_RATE, subtype="PCM_16")
    seconds = len(samples) / SAMPLE_RATE
    recording = Recording(name, [AudioSource("file", [0], target.name)], SAMPLE_RATE, len(samples), seconds)
    return MonoCut(name, 0.0, seconds, 0, [], recording=recording)
