"""CTC models of transformers: wav2vec 2.0, HuBERT, WavLM, data2vec and others that hear the waveform.

Legend: B utterances, T samples, F frames, D hidden units, V labels.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from robust_asr.masking import length_mask, masked
from robust_asr.models.adapter import LabelTokenizer
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.features import normalize_utterance
from robust_asr.models.hf_ctc_files import SAMPLE_RATE, build_network, read_content, read_weights, unpack
from robust_asr.models.hf_files import INLINE, load_tensors, named_folder
from robust_asr.text import normalize
from robust_asr.types import check_audio

# What Wav2Vec2FeatureExtractor adds to the variance.
_LEAST_VARIANCE = 1e-7
# These hear nothing beyond the end of an utterance if they are given an attention mask. data2vec's positions and the Conformer's
# convolutions reach over the end, where the layers before them have written something.
_MASKED = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")


class HuggingFaceCTC(CTCRecognizer):
    """A CTC model of transformers with the preparation of its audio, in evaluation mode when built.

    The audio is brought to zero mean and unit variance over the utterance's own length, if the model's feature extractor does
    so; this is part of the graph, so gradients pass through it. A model with layer normalisation in its convolutions was trained
    with an attention mask and is given one. A model with group normalisation was not, and hears the padding of its batch: it is
    not ``padding_invariant``, nor are data2vec and Conformers.

    Texts are read and written in capitals; a vocabulary that has both cases keeps the case, and reads a letter of the other case
    where it has only one. Special tokens write nothing. Transcripts of the greedy search are then those of ``batch_decode``.

    The attribute ``model`` describes the architecture, the vocabulary and the preparation, not the weights. It becomes part of a
    checkpoint, which can then be loaded without the original files. SpecAugment is off.

    Args:
        model: a local folder with ``config.json``, ``preprocessor_config.json``, ``vocab.json`` and ``model.safetensors``; the
            name of such a model on Hugging Face's hub; or a description as ``describe`` writes it, whose weights are random.

    Errors: ValueError names what is missing or not accepted in the folder, or says what to install.
    """

    sample_rate = SAMPLE_RATE
    stochastic = False

    def __init__(self, model: str) -> None:
        folder = None if model.startswith(INLINE) else named_folder(model, example="facebook/wav2vec2-base-960h")
        content = unpack(model) if folder is None else read_content(folder)
        super().__init__(_tokenizer(content.labels, content.blank, content.word_boundary))
        self.model = content.pack()
        network = build_network(content)
        self.network = network.base_model
        self.dropout = network.dropout
        self.head = network.lm_head
        config = network.config
        self._normalise = content.normalise
        # data2vec has no other.
        self._masks = getattr(config, "feat_extract_norm", "layer") == "layer"
        self.padding_invariant = self._masks and content.kind in _MASKED
        hops = [math.prod(config.conv_stride[:layer]) for layer in range(len(config.conv_stride) + 1)]
        # Audio that is shorter is followed by zeros, so that it has one frame.
        self._shortest = 1 + sum((kernel - 1) * hop for kernel, hop in zip(config.conv_kernel, hops, strict=False))
        self.frame_shift = hops[-1] / SAMPLE_RATE
        if folder is not None:
            load_tensors(self, read_weights(folder, network.base_model_prefix, self.state_dict()), folder)
        self.eval()

    def num_frames(self, lengths: Tensor) -> Tensor:
        return self.network._get_feat_extract_output_lengths(lengths.clamp(min=self._shortest))

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_audio(waveforms, lengths)
        audio = self._prepared(masked(waveforms, lengths), lengths)
        audio = functional.pad(audio, (0, max(self._shortest - audio.shape[1], 0)))
        heard = lengths.clamp(min=self._shortest)
        mask = length_mask(heard, audio.shape[1]).long() if self._masks else None
        hidden = self.network(audio, attention_mask=mask).last_hidden_state
        return self.dropout(hidden), self.num_frames(lengths)

    def _prepared(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Zero mean and unit variance over the utterance's own length; zeros past it. Shape: (B, T) -> (B, T)."""
        if not self._normalise:
            return audio
        return normalize_utterance(audio[..., None], lengths, eps=_LEAST_VARIANCE)[..., 0]


class CasedTokenizer(LabelTokenizer):
    """The characters of a model that writes capitals and small letters: texts keep their spelling.

    A character without a label is read as the label that ``normalize`` does not tell apart from it, so that a model whose
    vocabulary lacks a capital still reads it.
    """

    def __init__(self, labels: Sequence[str], *, blank: int = 0, word_boundary: str = "|") -> None:
        super().__init__(labels, blank=blank, word_boundary=word_boundary)
        self._similar = {normalize(text): token for text, token in reversed(self._tokens.items()) if text != " "}

    def encode(self, text: str) -> list[int]:
        text = " ".join(unicodedata.normalize("NFC", text).split())
        tokens = {character: self._token(character) for character in text}
        unknown = sorted(character for character, token in tokens.items() if token is None)
        if unknown:
            raise ValueError(f"text {text!r} has {unknown}, which no label of the model writes")
        return [tokens[character] for character in text]

    def _token(self, character: str) -> int | None:
        return self._tokens.get(character, self._similar.get(normalize(character)))

    def _writes(self, label: str) -> str:
        return label if len(label) == 1 and label != self.word_boundary else super()._writes(label)


def _tokenizer(labels: list[str], blank: int, word_boundary: str) -> LabelTokenizer:
    written = [normalize(label) for place, label in enumerate(labels) if len(label) == 1 and place != blank]
    kind = LabelTokenizer if len(set(written)) == len(written) else CasedTokenizer
    return kind(labels, blank=blank, word_boundary=word_boundary)
