"""Adversarial sets as training data: each attacked utterance together with the audio that it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import MonoCut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.collate import Utterances
from datamodules.manifest import Manifest, part_name
from datamodules.pairs.paired_set import PairedSet, PairSampler, attacked_weights, made_against
from datamodules.speech import Speech
from robust_asr.types import PairedBatch


class AttackPairs(Speech):
    """Trains on pairs (attacked, clean, text) from sets that ``train.py predict`` wrote; evaluates like ``Speech``.

    An epoch brings every pair of a set of weight 1 once. A share of the pairs are clean on both sides. Which pairs, and where a
    crop begins, is keyed by (seed, pair, epoch), so that ranks, workers and a resume change nothing. The id of a pair is
    ``<utterance>@<set>-<part>``.

    Args:
        manifests: folder of the manifests of the clean corpus.
        sets: manifest of a part of a set (``runs/attacks/train.jsonl.gz``) -> weight: how often an epoch brings its pairs, also
            a fraction.
        train: parts of the corpus that the sets were made from.
        attacked: the checkpoint that the sets were made against; a set made against other weights is refused.
        clean_share: share of the pairs of an epoch that are clean on both sides.
        crop_seconds: longest stretch of an utterance; both sides are cut alike. A crop has no text: "". Null takes whole
            utterances.
        others: the other arguments of ``Speech``; ``shar`` and ``speed_perturb`` are refused.

    Errors: ValueError names the set, the utterance and the field.
    """

    sampler_class = PairSampler

    def __init__(
        self,
        manifests: str,
        sets: dict[str, float],
        train: list[str],
        validate: list[str] | None = None,
        test: list[str] | None = None,
        *,
        attacked: str | None = None,
        clean_share: float = 0.1,
        crop_seconds: float | None = 4.0,
        **others: Any,
    ) -> None:
        super().__init__(manifests, train, validate, test, **others)
        if self.shar or len(self._selection.speeds) > 1:
            raise ValueError("shar and speed_perturb must be false: an adversarial set is trained on as it was written")
        _check(sets, clean_share, crop_seconds)
        self.sets, self.attacked = dict(sets), attacked
        self.clean_share, self.crop_seconds = clean_share, crop_seconds
        self._training_audio = Pairs(sample_rate=self.sample_rate, cache_bytes=self._utterances.cache_bytes)

    def _training_set(self) -> PairedSet:
        wanted = None if self.attacked is None else attacked_weights(self.attacked)
        sets = {}
        for path, weight in self.sets.items():
            manifest = Manifest(path)
            if wanted is not None:
                _check_attacked(Path(path).parent, wanted, self.attacked)
            if part_name(path) in sets:
                raise ValueError(
                    f"sets: {path} and another set are both called {part_name(path)}; rename the folder of one"
                )
            sets[part_name(path)] = (manifest, weight)
        return PairedSet(
            sets,
            [self._manifest(part) for part in self.parts["train"]],
            self._selection,
            sample_rate=self.sample_rate,
            clean_share=self.clean_share,
            crop_seconds=self.crop_seconds,
            seed=self.seed,
        )

    def _summary(self) -> str:
        return f"training on {self._training}; {self._batches_in_words()}"


class Pairs(Utterances):
    """Indexed by the pairs of ``PairedSet``, answers with the batch of them."""

    def __getitem__(self, cuts: Iterable[MonoCut]) -> PairedBatch:
        cuts = list(cuts)
        sides = [self._sides(cut) for cut in cuts]
        return PairedBatch(
            waveforms=pad_sequence([attacked for attacked, _ in sides], batch_first=True),
            lengths=torch.tensor([len(attacked) for attacked, _ in sides], dtype=torch.long),
            texts=tuple(cut.custom["text"] for cut in cuts),
            ids=tuple(cut.id for cut in cuts),
            clean=pad_sequence([clean for _, clean in sides], batch_first=True),
        )

    def _sides(self, cut: MonoCut) -> tuple[Tensor, Tensor]:
        """The same stretch of both. Shape: (T,) each."""
        start, size = cut.custom["start"], cut.custom["size"]
        clean = self._waveform(cut.custom["clean"])[start : start + size]
        if cut.custom["stays_clean"]:
            return clean, clean
        return self._waveform(cut)[start : start + size], clean


def _check(sets: dict[str, float], clean_share: float, crop_seconds: float | None) -> None:
    if not sets:
        raise ValueError("sets: names no adversarial set, so there is nothing to fit on")
    for path, weight in sets.items():
        if not 0 < weight <= 100:
            raise ValueError(f"sets: the weight of {path} must lie in (0, 100], found {weight}")
    if not 0 <= clean_share < 1:
        raise ValueError(f"clean_share must lie in [0, 1), found {clean_share}")
    if crop_seconds is not None and not 0.05 <= crop_seconds < float("inf"):
        raise ValueError(f"crop_seconds must be at least 0.05 or null, found {crop_seconds}")


def _check_attacked(folder: Path, wanted: str, path: str) -> None:
    weights = made_against(folder)
    if weights != wanted:
        raise ValueError(f"{folder}: was made against weights {weights[:12]}, attacked names {path} with {wanted[:12]}")
