"""The audio of a part in shards, for training that streams them."""

from __future__ import annotations

import glob
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, CutSet, Recording
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy
from tqdm import tqdm

from robust_asr.storage.audio import read_audio
from robust_asr.storage.files import folder_written_whole

SHARD_FOLDER = "{part}-shar"


def write_shards(
    out: Path, part: str, corpus: Path, cuts: Sequence[MonoCut], *, shard_size: int, progress: tqdm
) -> None:
    """Writes the folder of shards of a part into ``out``, whole or not at all. Errors: ValueError names a file that changed."""
    folder = out / SHARD_FOLDER.format(part=part)
    # What a killed run left half written may be as large as the corpus.
    for leftover in (folder, *out.glob(f".{glob.escape(folder.name)}.*.part")):
        shutil.rmtree(leftover, ignore_errors=True)
    with folder_written_whole(folder) as temporary:
        cuts_with_audio = CutSet(_ShardCuts(corpus.resolve(), cuts, progress))
        cuts_with_audio.to_shar(temporary, fields={"recording": "flac"}, shard_size=shard_size)


@dataclass
class _ShardCuts:
    """Cuts with their audio, counted as lhotse takes them."""

    root: Path
    cuts: Sequence[MonoCut]
    progress: tqdm

    def __iter__(self) -> Iterator[MonoCut]:
        for cut in self.cuts:
            yield fastcopy(cut, recording=_in_memory(cut.recording.with_path_prefix(self.root)))
            self.progress.update()


def _in_memory(recording: Recording) -> Recording:
    """The samples as we read them: lhotse reads lossy files, and those without a length, in its own way or not at all."""
    path = Path(recording.sources[0].source)
    rate = recording.sampling_rate
    samples = read_audio(path, sample_rate=rate, num_samples=recording.num_samples, lossy=True)
    whole = io.BytesIO()
    subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
    soundfile.write(whole, samples, rate, format="WAV", subtype=subtype)
    return fastcopy(recording, sources=[AudioSource("memory", [0], whole.getvalue())])
