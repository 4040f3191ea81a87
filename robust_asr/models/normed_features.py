"""The beginning of an acoustic encoder: features, their global normalisation, SpecAugment.

Legend: B utterances, T samples, F frames, M features.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_asr.models.normalization import MaskedBatchNorm
from robust_asr.models.spec_augment import SpecAugment


class NormedFeatures(nn.Module):
    """A base of encoders; a subclass sets the three attributes.

    The running statistics of the BatchNorm are those of the training set: features are normalised globally, not for each
    utterance. The padding has no effect.

    Attributes:
        front_end: from waveforms (B, T) and lengths to features (B, F, M) and their lengths.
        feature_norm: of the M features.
        spec_augment: masks the normalised features in training; None for no masks.
    """

    front_end: nn.Module
    feature_norm: MaskedBatchNorm
    spec_augment: SpecAugment | None

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: waveforms (B, T), lengths (B,) -> (B, F, M), feature lengths (B,)."""
        features, feature_lengths = self.front_end(waveforms, lengths)
        features = self.feature_norm(features.transpose(1, 2), feature_lengths).transpose(1, 2)
        if self.spec_augment is not None:
            features = self.spec_augment(features, feature_lengths)
        return features, feature_lengths
