"""Environmental sounds: prepared once as 16 kHz FLAC, so that later only WAV and FLAC are ever opened."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
from lhotse import AudioSource, Recording
from lhotse.cut import MonoCut

from datamodules.manifest import SUFFIX, write_corpus_root, write_manifest
from datamodules.preparing.files import AUDIO_SUFFIXES
from datamodules.preparing.parallel import mapped, progress_bar
from datamodules.preparing.parts import Finding
from datamodules.resampling import resample
from robust_asr.storage.audio import SAMPLE_RATES, read_sound
from robust_asr.storage.files import folder_written_whole
from robust_asr.text.terminal import say

SAMPLE_RATE = 16_000
NAME = "noise"
AUDIO_FOLDER = "audio"


def prepare_noise(folder: Path, out: Path, *, num_jobs: int = 2) -> list[Finding]:
    """Converts every sound below ``folder`` and writes ``out`` with ``noise.jsonl.gz``, whole or not at all.

    The id of a sound is its path, which in most collections begins with its class.

    Errors: ValueError if ``folder`` holds no sound or ``out`` exists. What is wrong with a single file is a finding.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(AUDIO_SUFFIXES)}")
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
        with progress_bar("converting", total=len(named), unit="sounds") as progress:
            results = list(
                mapped(
                    lambda item: _converted(*item, folder, temporary),
                    list(named.items()),
                    num_jobs=num_jobs,
                    progress=progress,
                )
            )
        findings += [result for result in results if isinstance(result, Finding)]
        cuts = [result for result in results if isinstance(result, MonoCut)]
        write_corpus_root(temporary, temporary / AUDIO_FOLDER)
        write_manifest(temporary / f"{NAME}{SUFFIX}", cuts)
    say(f"{NAME}: {len(cuts)} sounds, {sum(cut.duration for cut in cuts) / 60:.1f} minutes")
    return findings


def _converted(name: str, path: Path, folder: Path, out: Path) -> MonoCut | Finding:
    shown = str(path.relative_to(folder))
    try:
        header, channels = read_sound(path)
    except ValueError as error:
        return Finding(shown, f"cannot be read ({error})", name)
    if header.sample_rate not in SAMPLE_RATES:
        return Finding(shown, f"has the odd rate {header.sample_rate}", name)
    samples = torch.from_numpy(channels).mean(1)
    if not samples.isfinite().all() or not samples.any():
        return Finding(shown, "is silent or not finite", name)
    # Lossy codecs overshoot full scale. Scaling keeps the shape that clipping would cut.
    samples = resample(samples / samples.abs().max().clamp(min=1.0), header.sample_rate, SAMPLE_RATE)
    target = out / AUDIO_FOLDER / f"{name}.flac"
    soundfile.write(target, samples.numpy(), SAMPLE_RATE, subtype="PCM_16")
    seconds = len(samples) / SAMPLE_RATE
    recording = Recording(name, [AudioSource("file", [0], target.name)], SAMPLE_RATE, len(samples), seconds)
    return MonoCut(name, 0.0, seconds, 0, [], recording=recording)
