from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path

import pytest
import torch

from robust_asr.search.greedy import GreedySearch
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.text.bpe import BpeTokenizer, main, texts_of, train_bpe
from robust_asr.types import Emissions

TEXTS = ["the cat sat on the mat", "THAT CAT ISN'T THE CAT", "a hat on a mat", "zebra fox quick jumps lazy dog win"]


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return train_bpe(TEXTS, size=48)


def test_a_text_and_back(tokenizer: BpeTokenizer):
    assert tokenizer.size == 48
    for text in [*TEXTS, "", "a", "the thin cat's dog"]:
        tokens = tokenizer.encode(text)
        assert tokenizer.blank not in tokens and all(token < tokenizer.size for token in tokens)
        assert tokenizer.decode(tokens) == text.upper()
        assert "".join(tokenizer.pieces(tokens)).strip() == text.upper()
    assert len(tokenizer.encode("THE CAT")) < 4, "frequent words are few pieces"


def test_the_same_texts_give_the_same_model(tokenizer: BpeTokenizer):
    assert train_bpe(TEXTS, size=48).model == tokenizer.model


def test_a_character_without_a_piece_is_named(tokenizer: BpeTokenizer):
    assert tokenizer.unwritable("the Ωcat 5") == ["5", "Ω"] and tokenizer.unwritable("the cat") == []
    with pytest.raises(ValueError, match="Ω"):
        tokenizer.encode("THE Ω")


def test_the_description_holds_the_model(tokenizer: BpeTokenizer, tmp_path: Path):
    texts, out = tmp_path / "texts.txt", tmp_path / "pieces.model"
    texts.write_text("\n".join(TEXTS))
    main([str(texts), str(out), "--size", "48"])
    from_file = BpeTokenizer(str(out))
    out.unlink()
    rebuilt = trust.build(json.loads(json.dumps(describe(from_file))), expected=BpeTokenizer)
    assert describe(rebuilt) == describe(from_file) == describe(tokenizer)
    assert rebuilt.encode("THE CAT") == tokenizer.encode("THE CAT") == copy.deepcopy(tokenizer).encode("THE CAT")


def test_learned_from_a_manifest(tmp_path: Path):
    manifest, out = tmp_path / "train.jsonl.gz", tmp_path / "pieces.model"
    with gzip.open(manifest, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": text, "supervisions": [{"text": text}]}) + "\n" for text in TEXTS)
    main([str(manifest), str(out), "--size", "48"])
    assert BpeTokenizer(str(out)).model == train_bpe(TEXTS, size=48).model


def test_words_have_their_times(tokenizer: BpeTokenizer):
    tokens = tokenizer.encode("ON THE")
    labels = [token for token in tokens for _ in range(2)]
    log_probs = torch.full((1, len(labels), tokenizer.size), -9.0)
    log_probs[0, torch.arange(len(labels)), torch.tensor(labels)] = -0.01
    emissions = Emissions(log_probs, torch.tensor([len(labels)]))
    (transcript,) = GreedySearch()(emissions, tokenizer, frame_shift=0.04)
    assert transcript.text == "ON THE" and [word.text for word in transcript.words] == ["ON", "THE"]
    assert transcript.words[1].end == pytest.approx(0.04 * len(labels))


def test_what_is_no_model_is_refused(tmp_path: Path):
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(ValueError, match="no sentencepiece model"):
        BpeTokenizer(str(tmp_path / "text.model"))
    with pytest.raises(ValueError, match="base64"):
        BpeTokenizer("base64:???")
    with pytest.raises(FileNotFoundError):
        BpeTokenizer(str(tmp_path / "nowhere.model"))


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_size_that_does_not_fit_is_named(size: int):
    with pytest.raises(ValueError, match=str(size)):
        train_bpe(TEXTS, size=size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"supervisions": [{"text": "A"}]}\n{', r"m\.jsonl, line 2: is no entry of a manifest"),
        (b'{"supervisions": [{}]}\n', r"m\.jsonl, line 1: is no entry of a manifest with texts \('text'\)"),
        (b"[1]\n", r"m\.jsonl, line 1: is no entry"),
        (b"\xff\xfe\n", r"m\.jsonl: after line 0: is not UTF-8"),
    ],
)
def test_a_file_without_texts_is_named(content, message, tmp_path):
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(texts_of(str(tmp_path / "m.jsonl")))
