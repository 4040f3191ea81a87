"""Your own CTC model as a recogniser, which can be attacked, defended and evaluated like the models of this package.

Legend: B utterances, T samples, F frames, V labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.models.base import CTCRecognizer
from robust_asr.text import Tokenizer, normalize
from robust_asr.types import check_audio


class CTCAdapter(CTCRecognizer):
    """A module from waveforms to the scores of CTC labels, as a recogniser.

    ``module(waveforms (B, T), lengths (B,))`` returns scores (B, F, V), logits or log-probabilities, and the number of frames
    of each utterance (B,). The returned values are checked against this contract once for every padded size of audio.

    wav2vec 2.0 from torchaudio fulfils the contract as it is::

        bundle = torchaudio.pipelines.WAV2VEC2_ASR_BASE_960H
        recognizer = CTCAdapter(
            bundle.get_model(), tokenizer=LabelTokenizer(bundle.get_labels()), hop=320, receptive_field=400
        )

    A model from transformers needs a wrapper that returns both tensors::

        class Wav2Vec2(nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, waveforms, lengths):
                mask = torch.arange(waveforms.shape[1], device=lengths.device) < lengths[:, None]
                logits = self.model(waveforms, attention_mask=mask.long()).logits
                return logits, (lengths - 400) // 320 + 1

    Any preparation of the audio, such as normalisation, belongs into the wrapper, so that gradients of attacks pass through the
    preparation too. The hidden units of this recogniser (``Encoded.encode``) are the scores. ``robust_asr.checkpoint`` can save
    the recogniser if the module keeps its constructor arguments as attributes; attacks do not need that.

    Args:
        hop, receptive_field: the module returns (n - receptive_field) // hop + 1 frames for n samples, and at least one, since
            audio shorter than the receptive field is padded with zeros. 320 and 400 for wav2vec 2.0, HuBERT and WavLM. A
            receptive field of 0 describes a centred short-time Fourier transform, of 1 a model with ceil(n / hop) frames.
        padding_invariant: False, the safe choice, means that utterances are attacked alone or in equal lengths. Many published
            models normalise over the padding, which changes the output of torchaudio's wav2vec2_base by 23 % (the ``lv60k``
            models do not normalise this way).

    Units: hop and receptive_field in samples, sample_rate in hertz.
    Errors: ValueError says how the module breaks the contract.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        hop: int,
        receptive_field: int,
        tokenizer: Tokenizer | None = None,
        sample_rate: int = 16_000,
        padding_invariant: bool = False,
    ) -> None:
        super().__init__(tokenizer)
        for name, value in (("hop", hop), ("sample_rate", sample_rate)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        self.module = module
        self.hop = hop
        self.receptive_field = receptive_field
        self.sample_rate = sample_rate
        self.padding_invariant = padding_invariant
        self.frame_shift = hop / sample_rate
        self.head = nn.Identity()
        self._checked: set[int] = set()

    def num_frames(self, lengths: Tensor) -> Tensor:
        return (lengths - self.receptive_field).clamp(min=0) // self.hop + 1

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_audio(waveforms, lengths)
        missing = max(self.receptive_field - waveforms.shape[1], 0)
        audio = functional.pad(masked(waveforms, lengths), (0, missing))
        scores, frame_lengths = self._pair(self._scored(audio, lengths.clamp(min=self.receptive_field)))
        # The values are checked once for each size, because reading them on a GPU waits until all queued work is finished.
        if audio.shape[1] not in self._checked:
            self._check(scores, frame_lengths, lengths)
            self._checked.add(audio.shape[1])
        return masked(scores, frame_lengths), frame_lengths

    def _scored(self, audio: Tensor, lengths: Tensor) -> object:
        try:
            return self.module(audio, lengths)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # A module may convert the audio itself, so that other precisions are an error only where it fails.
            kinds = {parameter.dtype for parameter in self.module.parameters() if parameter.is_floating_point()}
            if not kinds or kinds == {audio.dtype}:
                raise
            names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise ValueError(
                f"the module has parameters of {names} and was given {str(audio.dtype).removeprefix('torch.')} audio, which it "
                f"cannot take ({error}): make both float32"
            ) from error

    def _pair(self, result: object) -> tuple[Tensor, Tensor]:
        pair = result if isinstance(result, tuple) else (result,)
        if len(pair) != 2 or not all(isinstance(value, Tensor) for value in pair):
            kinds = ", ".join(type(value).__name__ for value in pair)
            raise ValueError(f"the module must return scores and frame lengths, two tensors; it returned {kinds}")
        return pair

    def _check(self, scores: Tensor, frame_lengths: Tensor, lengths: Tensor) -> None:
        if scores.dim() != 3 or scores.shape[::2] != (len(lengths), self.tokenizer.size):
            raise ValueError(
                f"the module must return scores of shape ({len(lengths)} utterances, frames, {self.tokenizer.size} labels), "
                f"it returned {tuple(scores.shape)}"
            )
        expected = self.num_frames(lengths)
        wrong = (frame_lengths.to(expected) != expected).nonzero()[:, 0].tolist()
        if wrong:
            raise ValueError(
                f"hop {self.hop} and receptive_field {self.receptive_field} make {int(expected[wrong[0]])} frames of "
                f"{int(lengths[wrong[0]])} samples, the module says {int(frame_lengths[wrong[0]])}"
            )
        if scores.shape[1] < int(expected.max()):
            raise ValueError(f"the module says {int(expected.max())} frames and returns scores of {scores.shape[1]}")
        valid = scores.detach()[0, : int(expected[0])].float()
        if bool((valid >= 0).all()) and torch.allclose(valid.sum(-1), valid.new_ones(len(valid)), atol=1e-3):
            raise ValueError("the module returns probabilities: return its logits, or their logarithm")


class LabelTokenizer(Tokenizer):
    """The characters of a model, in the order of its outputs; the blank may be at any position.

    Labels of several characters, such as ``<s>``, never occur in targets and are skipped in transcripts. Lower-case labels read
    and write upper-case text (``robust_asr.text.normalize``).

    Args:
        labels: the label of each output.
        blank: the position of the blank.
        word_boundary: the label that stands between words; a label that is a space always does.
    """

    def __init__(self, labels: Sequence[str], *, blank: int = 0, word_boundary: str = "|") -> None:
        if not isinstance(labels, Sequence) or not all(isinstance(label, str) for label in labels):
            raise ValueError(
                f"labels must be a list of texts in the order of the model's outputs, found a {type(labels).__name__}; the list of "
                "a dictionary from label to output is sorted(labels, key=labels.get)"
            )
        if not 0 <= blank < len(labels):
            raise ValueError(f"blank must be a position among the {len(labels)} labels, found {blank}")
        self.labels = list(labels)
        self.blank = blank
        self.word_boundary = word_boundary
        written = {token: self._writes(label) for token, label in enumerate(labels) if token != blank}
        self._characters = {token: text for token, text in written.items() if text}
        self._tokens = {text: token for token, text in self._characters.items()}
        if len(self._tokens) < len(self._characters):
            doubled = sorted({text for text in self._tokens if list(self._characters.values()).count(text) > 1})
            raise ValueError(f"labels hold several for {doubled}: each character must have one")

    @property
    def size(self) -> int:
        return len(self.labels)

    def encode(self, text: str) -> list[int]:
        text = normalize(text)
        unknown = sorted(set(text) - self._tokens.keys())
        if unknown:
            raise ValueError(f"text {text!r} has {unknown}, which no label of the model writes")
        return [self._tokens[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._characters.get(token, "") for token in tokens)

    def _writes(self, label: str) -> str:
        if label in (" ", self.word_boundary):
            return " "
        return normalize(label) if len(label) == 1 else ""
