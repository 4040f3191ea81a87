"""Environmental sounds that ``python -m datamodules.prepare noise`` wrote, as waveforms."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from torch import Tensor

from datamodules.collate import Utterances
from datamodules.manifest import SUFFIX, Manifest
from datamodules.preparing.noise import NAME, SAMPLE_RATE


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
