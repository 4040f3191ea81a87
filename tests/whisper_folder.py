"""A Whisper of a few thousand parameters in Hugging Face's layout, made on the spot; skips a test where transformers is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from robust_asr.models.whisper import Whisper

# The bytes of printable ASCII in the byte-level alphabet, in which the space is written as Ġ.
CHARACTERS = [character for character in map(chr, range(33, 127))] + ["Ġ"]
MERGES = [("H", "E"), ("L", "L"), ("Ġ", "A"), ("HE", "LL")]
PIECES = CHARACTERS + ["".join(pair) for pair in MERGES]
SPECIALS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|notimestamps|>",
]
IDS = {piece: index for index, piece in enumerate(PIECES + SPECIALS)}
END = IDS["<|endoftext|>"]
# A window of two seconds.
POSITIONS = 100
WINDOW = 320 * POSITIONS


def write_whisper(
    folder: Path, *, multilingual: bool = False, seed: int = 0, init_std: float = 0.02, **changes: Any
) -> Path:
    """Write a random Whisper; ``changes`` are arguments of ``WhisperConfig``. Returns the folder."""
    library = pytest.importorskip("transformers", reason="needs the extra [hf]")
    config = {
        "vocab_size": len(IDS),
        "num_mel_bins": 20,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "max_source_positions": POSITIONS,
        "max_target_positions": 32,
        "pad_token_id": END,
        "bos_token_id": END,
        "eos_token_id": END,
        "decoder_start_token_id": END + 1,
        "init_std": init_std,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = library.WhisperForConditionalGeneration(library.WhisperConfig(**{**config, **changes}))
    model.save_pretrained(folder)
    generation = {
        "decoder_start_token_id": END + 1,
        "eos_token_id": END,
        "pad_token_id": END,
        "bos_token_id": END,
        "no_timestamps_token_id": IDS["<|notimestamps|>"],
        "is_multilingual": multilingual,
        "suppress_tokens": [IDS["("], IDS['"'], END + 1, *range(END + 2, len(IDS))],
        "begin_suppress_tokens": [IDS["Ġ"], END],
        "max_length": 24,
        "alignment_heads": [[0, 1], [1, 0], [1, 1]],
    }
    if multilingual:
        generation["lang_to_id"] = {"<|en|>": IDS["<|en|>"], "<|de|>": IDS["<|de|>"]}
        generation["task_to_id"] = {"transcribe": IDS["<|transcribe|>"], "translate": IDS["<|translate|>"]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {piece: IDS[piece] for piece in PIECES}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    return tokenizer


def tiny_whisper(folder: Path, **changes: Any) -> Whisper:
    return Whisper(str(write_whisper(folder, **changes)))
