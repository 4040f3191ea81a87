"""Whisper's files in Hugging Face's layout: what describes a model, and its weights. Another architecture is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_asr.models import hf_files
from robust_asr.models.hf_files import SLOW_TOKENIZER, WEIGHTS
from robust_asr.models.whisper_features import FFT_SIZE, HOP, SAMPLE_RATE

_KIND = "Whisper"
# What the architecture is built from. All else in a config.json is left out: names of code, of attention kernels on the hub.
_SIZES = (
    "vocab_size",
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "max_source_positions",
    "max_target_positions",
    "pad_token_id",
)
_RATES = ("dropout", "attention_dropout", "activation_dropout")
_IDS = ("start", "end", "no_timestamps")
_GENERATION_KINDS = {"lang_to_id": dict, "task_to_id": dict, "suppress_tokens": list, "begin_suppress_tokens": list}
_FRONT_END = {"n_fft": FFT_SIZE, "hop_length": HOP, "sampling_rate": SAMPLE_RATE}


@dataclass(frozen=True)
class WhisperContent:
    """Everything that describes a Whisper but its weights.

    Attributes:
        sizes: the arguments of ``WhisperConfig``.
        generation: the ids of the prompt, the end of text, suppressed tokens, the longest transcript, and alignment heads if any.
        tokenizer: the content of ``tokenizer.json``.
        spelling: the content of ``normalizer.json``: British spellings of words and the American ones.
    """

    sizes: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: str
    spelling: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            not isinstance(self.sizes, dict)
            or not isinstance(self.generation, dict)
            or not isinstance(self.tokenizer, str)
        ):
            raise ValueError("sizes and generation must be JSON objects, tokenizer a text")
        for name, value in self.sizes.items():
            whole = name in _SIZES and type(value) is int and value >= (name != "pad_token_id")
            if not whole and not (name in _RATES and type(value) in (int, float) and 0 <= value < 1):
                raise ValueError(
                    f"{name} is {value!r}: accepted are {', '.join(_SIZES)} as counts, {', '.join(_RATES)} in [0, 1)"
                )
        heads = self.generation.get("alignment_heads", [])
        if not isinstance(heads, list) or not all(_is_head(pair, self.sizes) for pair in heads):
            raise ValueError(f"alignment_heads must be pairs of a layer and a head, found {str(heads)[:40]}")
        ids = [self.generation.get(name) for name in _IDS]
        for name in ("languages", "tasks"):
            ids += self._of(name, dict).values()
        for name in ("suppress", "begin_suppress"):
            ids += self._of(name, list)
        if not all(type(value) is int and value >= 0 for value in ids):
            raise ValueError(
                f"generation must hold ids of tokens, found {[x for x in ids if type(x) is not int][:3] or min(ids)}"
            )
        words = self.spelling.items() if isinstance(self.spelling, dict) else [(self.spelling, None)]
        if not all(isinstance(part, str) for pair in words for part in pair):
            raise ValueError(f"spelling must map words to words, found {str(self.spelling)[:40]!r}")
        longest = self.generation.get("max_length")
        if longest is not None and type(longest) is not int:
            raise ValueError(f"max_length must be a number of tokens, found {longest!r}")

    def _of(self, name: str, kind: type) -> Any:
        value = self.generation.get(name)
        if not isinstance(value, kind):
            raise ValueError(f"generation: {name} must be a {kind.__name__}, found {value!r}")
        return value

    def pack(self) -> str:
        """One text, from which ``unpack`` makes an equal content."""
        return hf_files.pack({name: value for name, value in asdict(self).items() if value or name != "spelling"})


def unpack(text: str) -> WhisperContent:
    """The content of a text that ``WhisperContent.pack`` wrote. ValueError for any other text."""
    try:
        return WhisperContent(**hf_files.unpack(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"model {text[:40]!r} is no description of a Whisper ({error})") from error


def read_content(folder: Path) -> WhisperContent:
    """What describes the model in a folder. ValueError names the file that is missing or not that of a Whisper."""
    config = hf_files.read_json(folder, "config.json", kind=_KIND)
    if config.get("model_type") != "whisper":
        raise ValueError(f"{folder}: config.json describes a model of type {config.get('model_type')!r}, not 'whisper'")
    hf_files.refuse_code(folder, config)
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise ValueError(f"{folder}: config.json asks for another activation than gelu, or for scaled embeddings")
    hf_files.check_weights(folder)
    if (folder / "preprocessor_config.json").is_file():
        front_end = hf_files.read_json(folder, "preprocessor_config.json", kind=_KIND)
        for name, value in _FRONT_END.items():
            if front_end.get(name, value) != value:
                raise ValueError(
                    f"{folder}: preprocessor_config.json has {name} {front_end[name]}, accepted is {value}"
                )
    sizes = {name: config[name] for name in (*_SIZES, *_RATES) if name in config}
    generation, tokenizer = _generation(folder), _tokenizer(folder)
    spelling = (
        hf_files.read_json(folder, "normalizer.json", kind=_KIND) if (folder / "normalizer.json").is_file() else {}
    )
    try:
        return WhisperContent(sizes, generation, tokenizer, spelling)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors`` by their names in ``WhisperModel``, in float32; the tied output layer is left out.

    Errors: ValueError for a file that is no safetensors, or has an output layer that is not tied.
    """
    tensors = hf_files.read_tensors(folder)
    output = tensors.pop("proj_out.weight", None)
    embedding = tensors.get("model.decoder.embed_tokens.weight")
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise ValueError(
            f"{folder / WEIGHTS} has an output layer that differs from the embedding of tokens, as no Whisper has"
        )
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def _is_head(pair: Any, sizes: Mapping[str, Any]) -> bool:
    most = sizes.get("decoder_layers", 0), sizes.get("decoder_attention_heads", 0)
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(place) is int and 0 <= place < size for place, size in zip(pair, most, strict=True))
    )


def _generation(folder: Path) -> dict[str, Any]:
    """The part of ``generation_config.json`` that decides the prompt and the search."""
    config = hf_files.read_json(folder, "generation_config.json", kind=_KIND)
    for name in ("decoder_start_token_id", "eos_token_id", "no_timestamps_token_id"):
        if not isinstance(config.get(name), int):
            raise ValueError(
                f"{folder}: generation_config.json must hold the number {name}, found {config.get(name)!r}"
            )
    for name, kind in _GENERATION_KINDS.items():
        if config.get(name) is not None and not isinstance(config[name], kind):
            raise ValueError(
                f"{folder}: generation_config.json must hold a {kind.__name__} {name}, found {config[name]!r}"
            )
    languages, tasks = config.get("lang_to_id") or {}, config.get("task_to_id") or {}
    multilingual = bool(config.get("is_multilingual", bool(languages)))
    heads = config.get("alignment_heads") or []
    return {
        **({"alignment_heads": heads} if heads else {}),
        "start": config["decoder_start_token_id"],
        "end": config["eos_token_id"],
        "no_timestamps": config["no_timestamps_token_id"],
        "languages": {name.strip("<|>"): token for name, token in languages.items()} if multilingual else {},
        "tasks": dict(tasks) if multilingual else {},
        "suppress": list(config.get("suppress_tokens") or []),
        "begin_suppress": list(config.get("begin_suppress_tokens") or []),
        "max_length": config.get("max_length"),
    }


def _tokenizer(folder: Path) -> str:
    """The content of ``tokenizer.json``, made from the files of the slow tokenizer where it is missing."""
    if (folder / "tokenizer.json").is_file():
        return json.dumps(
            hf_files.read_json(folder, "tokenizer.json", kind=_KIND), ensure_ascii=False, separators=(",", ":")
        )
    if not all((folder / name).is_file() for name in SLOW_TOKENIZER):
        raise ValueError(f"{folder} lacks its tokenizer: tokenizer.json, or {' and '.join(SLOW_TOKENIZER)}")
    slow = hf_files.require_library().WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    return slow.backend_tokenizer.to_str()
