"""The files of a CTC model in Hugging Face's layout: what describes the model, and its weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_asr.models import hf_files
from robust_asr.models.hf_files import require_library

SAMPLE_RATE = 16_000
_KIND = "CTC model"
# Types of models that hear the waveform, and what transformers calls their network with a CTC head.
NETWORKS = {
    "data2vec-audio": "Data2VecAudioForCTC",
    "hubert": "HubertForCTC",
    "unispeech": "UniSpeechForCTC",
    "unispeech-sat": "UniSpeechSatForCTC",
    "wav2vec2": "Wav2Vec2ForCTC",
    "wav2vec2-conformer": "Wav2Vec2ConformerForCTC",
    "wavlm": "WavLMForCTC",
}
_EXTRACTORS = (None, "Wav2Vec2FeatureExtractor", "Wav2Vec2Processor")
_TOKENIZERS = (None, "Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
_SPECIALS = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
# A token of the tokenizer's own, such as <s> or [PAD].
_MARKER = re.compile(r"<.*>|\[.*\]", re.DOTALL)


@dataclass(frozen=True)
class CTCContent:
    """Everything that describes a CTC model of transformers but its weights.

    Attributes:
        kind: the ``model_type`` of ``config.json``.
        sizes: the arguments of the model's configuration.
        labels: the text that each output writes, "" for one that writes nothing.
        blank: the output that is the blank, which Hugging Face calls the padding token.
        word_boundary: the label between words.
        normalise: whether audio is brought to zero mean and unit variance.
    """

    kind: str
    sizes: Mapping[str, Any]
    labels: list[str]
    blank: int
    word_boundary: str
    normalise: bool

    def __post_init__(self) -> None:
        if self.kind not in NETWORKS:
            raise ValueError(f"model_type {self.kind!r} is none of {', '.join(sorted(NETWORKS))}")
        if not isinstance(self.labels, list) or not all(isinstance(label, str) for label in self.labels):
            raise ValueError("labels must be a list of texts")
        if type(self.blank) is not int or type(self.normalise) is not bool or not isinstance(self.word_boundary, str):
            raise ValueError("blank must be a number, normalise true or false, word_boundary a text")
        if not isinstance(self.sizes, dict):
            raise ValueError("sizes must be a JSON object")
        known = _arguments(self.kind)
        for name, value in self.sizes.items():
            if name not in known or not _is_plain(value):
                raise ValueError(f"{name} is {value!r}: accepted are numbers, words and lists of numbers for {known}")

    def pack(self) -> str:
        """One text, from which ``unpack`` makes an equal content."""
        return hf_files.pack(asdict(self))


def unpack(text: str) -> CTCContent:
    """The content of a text that ``CTCContent.pack`` wrote. ValueError for any other text."""
    try:
        return CTCContent(**hf_files.unpack(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"model {text[:40]!r} is no description of a CTC model ({error})") from error


def read_content(folder: Path) -> CTCContent:
    """What describes the model in a folder. ValueError names the file that is missing or not accepted, and why."""
    config = hf_files.read_json(folder, "config.json", kind=_KIND)
    hf_files.refuse_code(folder, config)
    kind = config.get("model_type")
    if kind not in NETWORKS:
        raise ValueError(
            f"{folder}: config.json describes a model of type {kind!r}; accepted are CTC models of the types "
            f"{', '.join(sorted(NETWORKS))}"
        )
    heads = config.get("architectures")
    if heads and NETWORKS[kind] not in heads:
        raise ValueError(f"{folder}: its head is not CTC: config.json names {', '.join(map(str, heads))}")
    for name in ("add_adapter", "adapter_attn_dim"):
        if config.get(name):
            raise ValueError(f"{folder}: config.json asks for an adapter ({name}), which is not accepted")
    hf_files.check_weights(folder)
    normalise = _normalises(folder)
    labels, blank, word_boundary = _vocabulary(folder, config)
    sizes = {name: config[name] for name in _arguments(kind) if name in config}
    try:
        return CTCContent(kind, sizes, labels, blank, word_boundary, normalise)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_weights(folder: Path, prefix: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors`` by their names in ``HuggingFaceCTC``, whose state dict is ``wanted``.

    ``prefix`` is the name of the network without a head. Models trained without SpecAugment lack the vector that stands for a
    masked frame; nothing here ever uses it.

    Errors: ValueError for a file that is no safetensors or has no CTC head.
    """
    tensors = hf_files.read_tensors(folder)
    if "lm_head.weight" not in tensors:
        raise ValueError(f"{folder}: its head is not CTC: {hf_files.WEIGHTS} holds no lm_head.weight")
    renamed = {_our_name(name, prefix): tensor for name, tensor in tensors.items()}
    unused = "network.masked_spec_embed"
    if unused in wanted:
        renamed.setdefault(unused, torch.zeros_like(wanted[unused]))
    return renamed


def _our_name(name: str, prefix: str) -> str:
    if name.startswith("lm_head."):
        return f"head.{name.removeprefix('lm_head.')}"
    # Files of before torch 2.1 have the two factors of a normalised weight under their old names.
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = re.sub(rf"\.{old}$", f".parametrizations.weight.{new}", name)
    return f"network.{name.removeprefix(f'{prefix}.')}"


def _arguments(kind: str) -> list[str]:
    """The arguments of the configuration class that may be given: those of the class itself, so neither code nor kernels."""
    signature = inspect.signature(_configuration(kind))
    return sorted(name for name, value in signature.parameters.items() if value.kind is value.POSITIONAL_OR_KEYWORD)


def _configuration(kind: str) -> Any:
    return getattr(require_library(), NETWORKS[kind].replace("ForCTC", "Config"))


def build_network(content: CTCContent) -> Any:
    """Transformers' network with a CTC head and random weights. ValueError if the sizes do not make one."""
    network = getattr(require_library(), NETWORKS[content.kind])
    # Its masks come from numpy's global generator, which no training run here seeds or saves.
    sizes = {**content.sizes, "apply_spec_augment": False, "vocab_size": len(content.labels)}
    attention = "sdpa" if network._supports_sdpa else "eager"
    try:
        # Named here, because a configuration may name an implementation that is downloaded.
        return network(_configuration(content.kind)(**sizes, attn_implementation=attention))
    except (TypeError, ValueError, AssertionError, KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"model: no CTC model can be built from its sizes ({error})") from error


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(type(item) is int for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _normalises(folder: Path) -> bool:
    name = "preprocessor_config.json"
    extractor = hf_files.read_json(folder, name, kind=_KIND)
    hf_files.refuse_code(folder, extractor, file=name)
    if extractor.get("feature_extractor_type") not in _EXTRACTORS:
        raise ValueError(
            f"{folder}: {name} names a {extractor['feature_extractor_type']}, accepted is {_EXTRACTORS[1]}"
        )
    for field, value in {"sampling_rate": SAMPLE_RATE, "feature_size": 1, "padding_value": 0}.items():
        if extractor.get(field, value) != value:
            raise ValueError(f"{folder}: {name} has {field} {extractor[field]}, accepted is {value}")
    return bool(extractor.get("do_normalize", True))


def _vocabulary(folder: Path, config: Mapping[str, Any]) -> tuple[list[str], int, str]:
    """The label of each output, the blank, and the label between words."""
    if not (folder / "vocab.json").is_file():
        raise ValueError(f"{folder} lacks its tokenizer: vocab.json")
    ids = hf_files.read_json(folder, "vocab.json", kind=_KIND)
    if any(isinstance(value, dict) for value in ids.values()):
        raise ValueError(f"{folder}: vocab.json holds the vocabularies of several languages, accepted is one")
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings |= hf_files.read_json(folder, name, kind=_KIND) if (folder / name).is_file() else {}
    hf_files.refuse_code(folder, settings, file="tokenizer_config.json")
    if settings.get("tokenizer_class") not in _TOKENIZERS:
        raise ValueError(
            f"{folder}: tokenizer_config.json names a {settings['tokenizer_class']}, accepted is {_TOKENIZERS[1]}"
        )
    if settings.get("replace_word_delimiter_char", " ") != " ":
        raise ValueError(f"{folder}: tokenizer_config.json writes something else than a space between words")
    specials = {name: _content(settings.get(name, default)) for name, default in _SPECIALS.items()}
    added = folder / "added_tokens.json"
    extra = hf_files.read_json(folder, added.name, kind=_KIND) if added.is_file() else {}
    size = config.get("vocab_size", len(ids))
    labels = _labels(folder, {**extra, **ids}, size, silent=set(extra) | set(filter(None, specials.values())))
    blank = {**extra, **ids}.get(specials["pad_token"])
    if blank is None or blank != config.get("pad_token_id", 0):
        raise ValueError(
            f"{folder}: the blank is the padding token, which is {specials['pad_token']!r} ({blank}) by the tokenizer and "
            f"{config.get('pad_token_id', 0)} by config.json"
        )
    return labels, blank, _content(settings.get("word_delimiter_token", "|"))


def _labels(folder: Path, ids: Mapping[str, Any], size: Any, *, silent: set[str]) -> list[str]:
    if type(size) is not int or size < 1 or not all(type(token) is int and token >= 0 for token in ids.values()):
        raise ValueError(
            f"{folder}: vocab.json must give each token a number, and config.json their number, found {size!r}"
        )
    long = [token for token in ids if len(token) > 1 and token not in silent and not _MARKER.fullmatch(token)]
    if long:
        raise ValueError(
            f"{folder}: vocab.json has tokens of several characters, such as {long[0]!r}; accepted are characters"
        )
    beyond = [token for token, place in ids.items() if place >= size and token not in silent]
    if beyond:
        raise ValueError(f"{folder}: vocab.json numbers {beyond[0]!r} {ids[beyond[0]]}, the network has {size} outputs")
    labels = [""] * size
    for token, place in ids.items():
        if place < size and token not in silent:
            labels[place] = token
    return labels


def _content(token: Any) -> str:
    """The text of a token, which the files give as such or as an object."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")
