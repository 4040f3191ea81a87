"""CTC models of a few thousand parameters in Hugging Face's layout, made on the spot; skips a test without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from robust_asr.models.hf_ctc import HuggingFaceCTC
from robust_asr.models.hf_ctc_files import NETWORKS

UPPER = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
_OWN_SIZES = {"data2vec-audio": {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}}


def write_ctc(
    folder: Path,
    kind: str = "wav2vec2",
    *,
    labels: list[str] = UPPER,
    normalise: bool = True,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random CTC model of a type of transformers; ``changes`` are arguments of its configuration. Returns the folder.

    The weights are large, so that what it hears depends on the audio.
    """
    library = pytest.importorskip("transformers", reason="needs the extra [hf]")
    network = getattr(library, NETWORKS[kind])
    pad = next(label for label in labels if label.strip("<[>]").lower() == "pad")
    sizes = {**_SIZES, **_OWN_SIZES.get(kind, {}), "vocab_size": len(labels), "pad_token_id": labels.index(pad)}
    config = network.config_class(**{**sizes, "initializer_range": 0.3, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(config)
        torch.nn.init.normal_(model.lm_head.weight, std=2.0)
    model.save_pretrained(folder)
    extractor = library.Wav2Vec2FeatureExtractor(do_normalize=normalise)
    extractor.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({label: place for place, label in enumerate(labels)}))
    settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": pad, "word_delimiter_token": "|"}
    if "[UNK]" in labels:
        settings["unk_token"] = "[UNK]"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tiny_ctc(folder: Path, kind: str = "wav2vec2", **changes: Any) -> HuggingFaceCTC:
    return HuggingFaceCTC(str(write_ctc(folder, kind, **changes)))
