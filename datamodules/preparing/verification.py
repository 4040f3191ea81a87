"""Every sample of a corpus is read once; what is wrong with a file is a finding."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from datamodules.preparing.parallel import mapped
from datamodules.preparing.parts import Finding, Part
from robust_asr.storage.audio import SAMPLE_RATES, Header, measured
from robust_asr.storage.mpeg import OtherEncodingError

# A corpus may be of two rates, as Common Voice is: then one line says so.
_MOST_NAMED = 20


def verify_audio(part: Part, *, num_jobs: int, progress: tqdm) -> None:
    """Reads every sample of a part, and leaves out the utterances with a finding."""
    _read_audio(part, num_jobs, progress)
    part.leave_out()
    part.findings.extend(_unusual_rates(part))


def _read_audio(part: Part, num_jobs: int, progress: tqdm) -> None:
    utterances = part.without_findings()
    read = mapped(
        lambda utterance: _audio_header(part, part.audio[utterance]), utterances, num_jobs=num_jobs, progress=progress
    )
    for utterance, result in zip(utterances, read, strict=True):
        if isinstance(result, Header):
            part.headers[utterance] = result
        else:
            part.findings.append(Finding(part.relative(part.audio[utterance]), result, utterance))


def _audio_header(part: Part, path: Path) -> Header | str:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(part.root)):
        return "is a link that leaves the corpus"
    # Python puts surrogates for the bytes of a name that it cannot decode.
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        return "has a path that is not UTF-8; rename it"
    try:
        header, _ = measured(path, lossy=True)
        _check_rate(header.sample_rate)
    except OtherEncodingError as error:
        return f"{error}, so convert it: {_conversion(path)}"
    except (ValueError, OSError) as error:
        return str(error)
    return header


def _check_rate(rate: int) -> None:
    if rate not in SAMPLE_RATES:
        accepted = ", ".join(map(str, SAMPLE_RATES))
        raise OtherEncodingError(f"has the odd rate {rate}; {accepted} are accepted")


def _conversion(path: Path) -> str:
    target = path.with_suffix(".wav" if path.suffix.lower() == ".flac" else ".flac")
    return shlex.join(["ffmpeg", "-i", path.name, "-ac", "1", "-ar", "16000", target.name])


def _unusual_rates(part: Part) -> Iterator[Finding]:
    """The findings name no utterance, so that all are kept: the loader resamples them."""
    by_rate: dict[int, list[str]] = {}
    for utterance, header in part.headers.items():
        by_rate.setdefault(header.sample_rate, []).append(utterance)
    usual = max(by_rate, key=lambda rate: len(by_rate[rate]), default=None)
    for rate, utterances in by_rate.items():
        paths = [part.relative(part.audio[utterance]) for utterance in utterances]
        if rate == usual:
            continue
        if len(paths) > _MOST_NAMED:
            yield Finding(paths[0], f"and {len(paths) - 1} others have rate {rate}, most have {usual}")
        else:
            yield from (Finding(path, f"has rate {rate}, most have {usual}") for path in paths)
