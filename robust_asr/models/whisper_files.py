"""Whisper's files in Hugging Face's layout: what describes a model, its weights, and the description as one text.

Only JSON, text and safetensors are read. A pickle, code in the folder, or a model of another architecture is refused.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_asr.models.whisper_features import FFT_SIZE, HOP, SAMPLE_RATE
from robust_asr.storage import strict_json

INLINE = "zlib:"
WEIGHTS = "model.safetensors"
_MISSING = "Whisper needs transformers, which is not installed: pip install 'robust-asr[hf]'"
_SLOW_TOKENIZER = ("vocab.json", "merges.txt")
_WANTED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    *_SLOW_TOKENIZER,
    "added_tokens.json",
    "normalizer.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    WEIGHTS,
)
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
# No published description is larger than 4 MB; a deflated text of a stranger may be made to grow without end.
_MOST_BYTES = 2**25


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
        content = {name: value for name, value in asdict(self).items() if value or name != "spelling"}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return INLINE + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(text: str) -> WhisperContent:
    """The content of a text that ``WhisperContent.pack`` wrote. ValueError for any other text."""
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(base64.b64decode(text.removeprefix(INLINE), validate=True), _MOST_BYTES)
        if not inflate.eof:
            raise ValueError(f"it holds more than {_MOST_BYTES} bytes, or is cut off")
        fields = strict_json.loads(content)
        return WhisperContent(**fields)
    except (ValueError, TypeError, binascii.Error, zlib.error) as error:
        raise ValueError(f"model {text[:40]!r} is no description of a Whisper ({error})") from error


def folder_of(model: str) -> Path:
    """The local folder of a model: the folder itself, or that of a hub name in Hugging Face's cache, downloaded where necessary.

    Errors: ValueError if there is no such folder, and no such model in the cache or the hub.
    """
    if (folder := Path(model)).is_dir():
        return folder
    if not _is_hub_name(model):
        raise ValueError(f"model: there is no folder {model!r}, and it is no hub name such as openai/whisper-tiny.en")
    hub = require_library("huggingface_hub")
    try:
        return Path(hub.snapshot_download(model, allow_patterns=list(_WANTED)))
    # Which errors a download raises depends on the libraries below; each means that the model could not be had.
    except Exception as error:
        raise ValueError(
            f"model: there is no folder {model!r}, and the hub's model of this name is neither in the cache of "
            f"Hugging Face nor can it be downloaded ({type(error).__name__})"
        ) from error


def read_content(folder: Path) -> WhisperContent:
    """What describes the model in a folder. ValueError names the file that is missing or not that of a Whisper."""
    config = _json(folder, "config.json")
    if config.get("model_type") != "whisper":
        raise ValueError(f"{folder}: config.json describes a model of type {config.get('model_type')!r}, not 'whisper'")
    if "auto_map" in config:
        raise ValueError(f"{folder}: config.json names code of its own (auto_map), which is never run")
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise ValueError(f"{folder}: config.json asks for another activation than gelu, or for scaled embeddings")
    _check_weights(folder)
    if (folder / "preprocessor_config.json").is_file():
        front_end = _json(folder, "preprocessor_config.json")
        for name, value in _FRONT_END.items():
            if front_end.get(name, value) != value:
                raise ValueError(
                    f"{folder}: preprocessor_config.json has {name} {front_end[name]}, accepted is {value}"
                )
    sizes = {name: config[name] for name in (*_SIZES, *_RATES) if name in config}
    generation, tokenizer = _generation(folder), _tokenizer(folder)
    spelling = _json(folder, "normalizer.json") if (folder / "normalizer.json").is_file() else {}
    try:
        return WhisperContent(sizes, generation, tokenizer, spelling)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors`` by their names in ``WhisperModel``, in float32; the tied output layer is left out.

    Errors: ValueError for a file that is no safetensors, or has an output layer that is not tied.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_weights(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read as safetensors ({error})") from error
    output = tensors.pop("proj_out.weight", None)
    embedding = tensors.get("model.decoder.embed_tokens.weight")
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise ValueError(
            f"{folder / WEIGHTS} has an output layer that differs from the embedding of tokens, as no Whisper has"
        )
    return {
        name.removeprefix("model."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def require_library(name: str = "transformers") -> Any:
    """The module ``transformers`` or ``huggingface_hub``. ValueError says what to install where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{_MISSING} ({error})") from error


def _is_head(pair: Any, sizes: Mapping[str, Any]) -> bool:
    most = sizes.get("decoder_layers", 0), sizes.get("decoder_attention_heads", 0)
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(place) is int and 0 <= place < size for place, size in zip(pair, most, strict=True))
    )


def _is_hub_name(model: str) -> bool:
    parts = model.split("/")
    return len(parts) in (1, 2) and all(
        part and part[0].isalnum() and part.replace("-", "").replace(".", "").replace("_", "").isalnum()
        for part in parts
    )


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} lacks {name}, which a Whisper in Hugging Face's layout has")
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise ValueError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is read: convert them to {WEIGHTS}"
        )
    parts = " in one piece" if (folder / f"{WEIGHTS}.index.json").is_file() else ""
    raise ValueError(f"{folder} lacks {WEIGHTS}{parts}")


def _generation(folder: Path) -> dict[str, Any]:
    """The part of ``generation_config.json`` that decides the prompt and the search."""
    config = _json(folder, "generation_config.json")
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
        return json.dumps(_json(folder, "tokenizer.json"), ensure_ascii=False, separators=(",", ":"))
    if not all((folder / name).is_file() for name in _SLOW_TOKENIZER):
        raise ValueError(f"{folder} lacks its tokenizer: tokenizer.json, or {' and '.join(_SLOW_TOKENIZER)}")
    slow = require_library().WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    return slow.backend_tokenizer.to_str()
