"""A recogniser as an estimator of adversarial-robustness-toolbox 1.20.1 (ART), and repairs of two ART attacks for torch 2.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from art.attacks.evasion.imperceptible_asr.imperceptible_asr_pytorch import ImperceptibleASRPyTorch
from art.estimators.pytorch import PyTorchEstimator
from art.estimators.speech_recognition.speech_recognizer import PytorchSpeechRecognizerMixin, SpeechRecognizerMixin
from torch import Tensor

from robust_asr.gradients import input_gradient
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.text import normalize
from robust_asr.types import AudioBatch, Transcript


class Estimator(PytorchSpeechRecognizerMixin, SpeechRecognizerMixin, PyTorchEstimator):
    """Loss, gradient and texts of a recogniser in evaluation mode, for one batch at a time.

    ART's arrays are rectangles (B, T) without lengths, or objects (B,) of arrays. ``attend`` must be called before an attack with
    the batch, whose lengths are then used for the rectangles.

    Attributes:
        gradients, predictions: utterances passed through the recogniser so far, with and without a gradient.
    """

    input_shape = (None,)

    def __init__(self, recognizer: Recognizer) -> None:
        device = next(recognizer.parameters()).device
        kind = "gpu" if device.type == "cuda" else "cpu"
        super().__init__(model=recognizer, clip_values=(-1.0, 1.0), channels_first=False, device_type=kind)
        self.device, self.gradients, self.predictions = device, 0, 0

    @property
    def sample_rate(self) -> int:
        return self.model.sample_rate

    def attend(self, batch: AudioBatch) -> None:
        self._lengths = batch.lengths

    def predict(self, x: np.ndarray, batch_size: int = 128, **kwargs: object) -> np.ndarray:
        self.predictions += len(x)
        return texts_of(self.model.transcribe(*self._padded(x)))

    def loss_gradient(self, x: np.ndarray, y: Sequence[str], **kwargs: object) -> np.ndarray:
        waveforms, lengths = self._padded(x)
        targets = self.model.targets(list(y))
        _, gradient = input_gradient(lambda values: self.model.loss(values, lengths, targets), waveforms)
        self.gradients += len(x)
        rows = masked(gradient, lengths).cpu().numpy()
        return rows if x.dtype != object else ragged(row[:length] for row, length in zip(rows, lengths, strict=True))

    def compute_loss_and_decoded_output(
        self, masked_adv_input: Tensor, original_output: Sequence[str], **kwargs: object
    ) -> tuple[Tensor, np.ndarray]:
        waveforms, lengths = masked(masked_adv_input.float(), self._lengths), self._lengths
        targets = self.model.targets(list(original_output))
        losses, transcripts = self.model.loss_and_transcripts(waveforms, lengths, targets)
        self.gradients += len(waveforms)
        # ART adds this value to every masking loss and takes the mean of the sums, so this value must be a mean.
        return losses.mean(), texts_of(transcripts)

    def to_training_mode(self) -> None:
        """Do nothing: the recogniser stays in evaluation mode as in our attacks, because dropout would change it."""

    def set_batchnorm(self, train: bool) -> None:
        """Do nothing: ART would leave BatchNorm in training mode after the attack."""

    def fit(self, x: np.ndarray, y: np.ndarray, **kwargs: object) -> None:
        raise NotImplementedError("this recogniser is attacked, not trained")

    def get_activations(self, x: np.ndarray, layer: int | str, batch_size: int, framework: bool = False) -> np.ndarray:
        raise NotImplementedError("this recogniser is attacked for its loss alone")

    def _padded(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        if x.dtype != object:
            return masked(torch.from_numpy(x).float().to(self.device), self._lengths), self._lengths
        rows = [torch.from_numpy(np.asarray(row, dtype=np.float32)) for row in x]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device), self._lengths


class RaggedImperceptible(ImperceptibleASRPyTorch):
    """ART's attack on one batch of any lengths, repaired for NumPy 2 and torch 2.

    ART's ``generate`` builds an array of rows of unequal length, which fails since NumPy 1.24. Its second stage compares a tensor
    with an array when an utterance succeeds for the second time, which fails in torch 2.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: object) -> np.ndarray:
        # float64, as in ART's own generate.
        self.global_optimal_delta.data = torch.zeros_like(self.global_optimal_delta, dtype=torch.float64)
        attacked = self._generate_batch(ragged(row.astype(np.float64) for row in x), y)
        return ragged(row[: len(clean)] for row, clean in zip(attacked, x, strict=True))

    def _forward_2nd_stage(self, **kwargs: object) -> Tensor:
        return super()._forward_2nd_stage(**kwargs).as_subclass(_Comparable)


class FirstStage(RaggedImperceptible):
    """Only the first stage of ART's attack: the attack of Carlini and Wagner with Adam on the signs of the gradient."""

    def _generate_batch(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._attack_1st_stage(x=x, y=y)[0].detach().cpu().numpy()


class _Comparable(Tensor):
    def __lt__(self, other: object) -> bool:
        return self.item() < float(other)


def ragged(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays (t,) as one array of objects, even if all have the same length. Shape: -> (B,)."""
    rows = list(rows)
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def texts_of(transcripts: Iterable[Transcript]) -> np.ndarray:
    return np.array([normalize(transcript.text) for transcript in transcripts])
