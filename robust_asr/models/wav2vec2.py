"""wav2vec 2.0 (Baevski et al. 2020) with CTC, on torchaudio's network, from scratch or from torchaudio's published weights.

Legend: B utterances, T samples, F frames, C channels, D hidden units, V labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.models import wav2vec2_model
from torchaudio.pipelines import Wav2Vec2ASRBundle

from robust_asr.masking import length_mask, masked
from robust_asr.models.adapter import LabelTokenizer
from robust_asr.models.base import CTCRecognizer
from robust_asr.models.features import normalize_utterance
from robust_asr.ranges import require_heads, require_shares, require_sizes
from robust_asr.text import Tokenizer

ExtractorNorm = Literal["group_norm", "layer_norm"]

# Of each layer channels, kernel and stride: 20 ms a frame.
PUBLISHED_CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)


class Wav2Vec2(CTCRecognizer):
    """Convolutions on the waveform, a Transformer, a linear layer, CTC over characters.

    The defaults are the large size, which Yang et al. 2022 trained from scratch: 315,457,693 parameters with the 29 outputs of
    LibriSpeech's characters. ``load_bundle`` gives the published models, fine-tuned for recognition.

    The ``group_norm`` of the published base and large models is a mean over time, of padding too where a batch has some. Here it
    counts an utterance's own frames only, so a padded batch gives exactly what each utterance gives alone; so do attention and
    ``normalize_waveform``. Audio shorter than one frame's window is followed by zeros. Layers are never dropped in training, as
    the published models' were: under DDP all processes would have to drop the same.

    Args:
        convolutions: channels, kernel and stride of each layer; the published ones by default.
        norm: ``group_norm`` over time after the first layer, or ``layer_norm`` over channels after each.
        norm_first: whether layers of the Transformer normalise their input or their sum.
        position_kernel, position_groups: of the convolution that tells positions.
        normalize_waveform: mean 0 and variance 1 for the samples of each utterance, which the bundles of LV60K expect.

    Units: dropout in [0, 1); kernel and stride of the first layer in samples.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        convolutions: Sequence[Sequence[int]] = PUBLISHED_CONVOLUTIONS,
        convolution_bias: bool = False,
        norm: ExtractorNorm = "group_norm",
        width: int = 1024,
        num_layers: int = 24,
        num_heads: int = 16,
        feed_forward_width: int = 4096,
        norm_first: bool = False,
        position_kernel: int = 128,
        position_groups: int = 16,
        dropout: float = 0.1,
        normalize_waveform: bool = False,
    ) -> None:
        super().__init__(tokenizer)
        self.convolutions = [list(layer) for layer in convolutions]
        self.convolution_bias = convolution_bias
        self.norm: ExtractorNorm = norm
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.feed_forward_width = feed_forward_width
        self.norm_first = norm_first
        self.position_kernel = position_kernel
        self.position_groups = position_groups
        self.dropout = dropout
        self.normalize_waveform = normalize_waveform
        self._check()
        self.receptive_field, hop = 1, 1
        for _, kernel, stride in self.convolutions:
            self.receptive_field += (kernel - 1) * hop
            hop *= stride
        self.frame_shift = hop / self.sample_rate
        self.network = wav2vec2_model(
            extractor_mode=norm,
            extractor_conv_layer_config=[tuple(layer) for layer in self.convolutions],
            extractor_conv_bias=convolution_bias,
            encoder_embed_dim=width,
            encoder_projection_dropout=dropout,
            encoder_pos_conv_kernel=position_kernel,
            encoder_pos_conv_groups=position_groups,
            encoder_num_layers=num_layers,
            encoder_num_heads=num_heads,
            encoder_attention_dropout=dropout,
            encoder_ff_interm_features=feed_forward_width,
            encoder_ff_interm_dropout=dropout,
            encoder_dropout=dropout,
            encoder_layer_norm_first=norm_first,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
        self.head = nn.Linear(width, self.tokenizer.size)

    stochastic = False

    def num_frames(self, lengths: Tensor) -> Tensor:
        lengths = lengths.clamp(min=self.receptive_field)
        for _, kernel, stride in self.convolutions:
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values = self._normalized(masked(waveforms, lengths), lengths)
        values = functional.pad(values, (0, max(self.receptive_field - values.shape[1], 0)))[:, None]
        frame_lengths = lengths.clamp(min=self.receptive_field)
        for layer in self.network.feature_extractor.conv_layers:
            values = layer.conv(values)
            frame_lengths = (frame_lengths - layer.kernel_size) // layer.stride + 1
            if isinstance(layer.layer_norm, nn.GroupNorm):
                values = _group_norm(values, frame_lengths, layer.layer_norm)
            elif layer.layer_norm is not None:
                values = layer.layer_norm(values)
            values = functional.gelu(values)
        values = self.network.encoder.feature_projection(values.transpose(1, 2))
        # torchaudio's encoder does the same by boolean indices, for which a GPU makes the host wait.
        mask = length_mask(frame_lengths, values.shape[1])[:, None, None].expand(-1, 1, values.shape[1], -1)
        values = self.network.encoder.transformer(masked(values, frame_lengths), attention_mask=mask)
        return masked(values, frame_lengths), frame_lengths

    def _normalized(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        if not self.normalize_waveform:
            return waveforms
        # The addend is that of torch's layer norm, with which torchaudio normalises.
        return normalize_utterance(waveforms[..., None], lengths, eps=1e-5)[..., 0]

    def _check(self) -> None:
        if not self.convolutions or any(len(layer) != 3 or min(layer) < 1 for layer in self.convolutions):
            raise ValueError(
                f"Wav2Vec2: convolutions is {self.convolutions}, accepted are lists of channels, kernel and stride, each 1 or more"
            )
        if self.norm not in get_args(ExtractorNorm):
            raise ValueError(f"Wav2Vec2: norm is {self.norm!r}, accepted is {' or '.join(get_args(ExtractorNorm))}")
        dealt = {"num_heads": self.num_heads, "position_groups": self.position_groups}
        sizes = {name: getattr(self, name) for name in ("width", "num_layers", "feed_forward_width", "position_kernel")}
        require_sizes("Wav2Vec2", **sizes, **dealt)
        require_heads("Wav2Vec2", self.width, **dealt)
        require_shares("Wav2Vec2", dropout=self.dropout)


def load_bundle(bundle: str, *, file: str | None = None, sha256: str | None = None) -> Wav2Vec2:
    """A wav2vec 2.0 or HuBERT that torchaudio publishes, fine-tuned for recognition, with its labels, in evaluation mode.

    Without ``file`` torchaudio downloads the weights at the first call and keeps them in torch's cache. The weights are read
    without unpickling anything else (``weights_only``).

    Args:
        bundle: a name in ``torchaudio.pipelines``, such as WAV2VEC2_ASR_BASE_960H or HUBERT_ASR_LARGE.
        file: the file of weights, as torchaudio publishes it.
        sha256: the digest of the file, in hexadecimal; a file without it is refused.

    Errors: ValueError names what is wrong with the name, the digest or the weights; FileNotFoundError.
    """
    published = getattr(torchaudio.pipelines, bundle, None)
    if not isinstance(published, Wav2Vec2ASRBundle):
        names = (name for name in dir(torchaudio.pipelines) if isinstance(_bundle(name), Wav2Vec2ASRBundle))
        raise ValueError(f"bundle must be one of {', '.join(sorted(names))}, found {bundle!r}")
    if (file is None) is not (sha256 is None):
        raise ValueError(f"file is {file} and sha256 {sha256}: give both, or none to download the weights")
    if file is None:
        state = published._get_state_dict({"weights_only": True, "map_location": "cpu"})
    else:
        state = _read(Path(file), str(sha256))
        # Rows of a dictionary for translation, which no text of a recogniser has.
        _drop_rows(state, published._remove_aux_axis, wanted=published._params["aux_num_out"])
    recognizer = Wav2Vec2(LabelTokenizer(published.get_labels()), **_sizes(published))
    renamed = {
        f"head.{name[4:]}" if name.startswith("aux.") else f"network.{name}": value for name, value in state.items()
    }
    try:
        recognizer.load_state_dict(renamed)
    except RuntimeError as error:
        # torch's first line says what was loaded into, and each further line lists all names of a kind.
        first = str(error).splitlines()[1].strip().split(", ")[0]
        raise ValueError(f"{file or bundle}: these are no weights of {bundle}. {first}") from error
    return recognizer.eval()


def _bundle(name: str) -> object:
    return getattr(torchaudio.pipelines, name)


def _sizes(bundle: Wav2Vec2ASRBundle) -> dict[str, Any]:
    params = bundle._params
    return {
        "convolutions": params["extractor_conv_layer_config"],
        "convolution_bias": params["extractor_conv_bias"],
        "norm": params["extractor_mode"],
        "width": params["encoder_embed_dim"],
        "num_layers": params["encoder_num_layers"],
        "num_heads": params["encoder_num_heads"],
        "feed_forward_width": params["encoder_ff_interm_features"],
        "norm_first": params["encoder_layer_norm_first"],
        "position_kernel": params["encoder_pos_conv_kernel"],
        "position_groups": params["encoder_pos_conv_groups"],
        "dropout": params["encoder_dropout"],
        "normalize_waveform": bundle._normalize_waveform,
    }


def _read(file: Path, sha256: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"file: there is no {file}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256.lower():
        raise ValueError(f"{file}: its sha256 is {found}, not {sha256}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises errors of many kinds for what is no such file, or holds more than weights.
        raise ValueError(f"{file}: is no file of weights ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file}: holds no map from names to tensors")
    return state


def _drop_rows(state: dict[str, Tensor], rows: Sequence[int], *, wanted: int) -> None:
    for name in ("aux.weight", "aux.bias"):
        if name in state and len(state[name]) == wanted + len(rows):
            state[name] = state[name][[row for row in range(len(state[name])) if row not in rows]]


def _group_norm(values: Tensor, frame_lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Each channel with mean 0 and variance 1 over an utterance's own frames, then scale and shift.

    Shape: values (B, C, F), frame_lengths (B,) -> (B, C, F); the values in the padding are unspecified.
    """
    # Half precision is too coarse for a sum over thousands of frames.
    wide = values if values.dtype == torch.float64 else values.float()
    padding = ~length_mask(frame_lengths, values.shape[-1])[:, None]
    counts = frame_lengths[:, None, None]
    centred = wide - wide.masked_fill(padding, 0).sum(-1, keepdim=True) / counts
    variance = centred.masked_fill(padding, 0).square().sum(-1, keepdim=True) / counts
    normalized = centred * (variance + norm.eps).rsqrt()
    return (normalized * norm.weight[:, None] + norm.bias[:, None]).to(values.dtype)
