"""From cuts to padded batches of waveforms."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, get_worker_info

from datamodules.resampling import at_speed, resample
from robust_asr.storage.audio import read_audio
from robust_asr.types import AudioBatch


def perturbed(cut: MonoCut, speed: float) -> MonoCut:
    """The cut marked to be played at another speed; its id tells, as lhotse's does: ``<id>_sp0.9``."""
    if speed == 1.0:
        return cut
    return fastcopy(cut, id=f"{cut.id}_sp{speed}", duration=cut.duration / speed, custom={"speed": speed})


class Utterances(Dataset):
    """Indexed by cuts, answers with the batch of them.

    Audio is read by ``robust_asr.storage.audio`` alone, resampled to ``sample_rate`` and played at the speed that the cut
    asks for.

    Args:
        cache_bytes: size up to which the main process keeps decoded audio: a small corpus is decoded once.
    """

    def __init__(self, *, sample_rate: int, cache_bytes: int = 0) -> None:
        self.sample_rate, self.cache_bytes = sample_rate, cache_bytes
        self._cache: dict[tuple[str, float], Tensor] = {}

    def __getitem__(self, cuts: Iterable[MonoCut]) -> AudioBatch:
        cuts = list(cuts)
        waveforms = [self._waveform(cut) for cut in cuts]
        return AudioBatch(
            waveforms=pad_sequence(waveforms, batch_first=True) if waveforms else torch.zeros(0, 0),
            lengths=torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.long),
            texts=tuple(cut.supervisions[0].text for cut in cuts),
            ids=tuple(cut.id for cut in cuts),
        )

    def waveform(self, cut: MonoCut) -> Tensor:
        """Shape: (T,) float32 in [-1, 1]. ValueError names the file."""
        return self._waveform(cut).clone()

    def _waveform(self, cut: MonoCut) -> Tensor:
        """May be the cache's own memory, so nobody writes to it."""
        speed = (cut.custom or {}).get("speed", 1.0)
        (source,) = cut.recording.sources
        if source.type != "file":
            return _as_float(self._prepared(source.source, cut, speed))
        key = (source.source, speed)
        if key not in self._cache:
            prepared = self._prepared(Path(source.source), cut, speed)
            if get_worker_info() is not None or self.cache_bytes < prepared.nbytes:
                return _as_float(prepared)
            self.cache_bytes -= prepared.nbytes
            self._cache[key] = prepared
        return _as_float(self._cache[key])

    def _prepared(self, source: Path | bytes, cut: MonoCut, speed: float) -> Tensor:
        recording = cut.recording
        try:
            samples = read_audio(
                source, sample_rate=recording.sampling_rate, num_samples=recording.num_samples, lossy=True
            )
        except ValueError as error:
            name = source if isinstance(source, os.PathLike) else f"audio of {cut.id}"
            raise ValueError(f"{name}: {error}") from error
        waveform = torch.from_numpy(samples)
        if recording.sampling_rate == self.sample_rate and speed == 1.0:
            # Samples of 16 bits stay 16 bits, so the cache holds twice as many.
            return waveform
        return at_speed(resample(_as_float(waveform), recording.sampling_rate, self.sample_rate), speed)


def _as_float(samples: Tensor) -> Tensor:
    return samples.float().mul_(2.0**-15) if samples.dtype == torch.int16 else samples
