"""Byte-pair encoding with sentencepiece: labels that are pieces of words. To train a model from the texts of a manifest:

python -m robust_asr.text.bpe data/librispeech/train-clean-100.jsonl.gz bpe500.model --size 500
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from robust_asr.storage import strict_json
from robust_asr.storage.files import written_whole
from robust_asr.text import Tokenizer, normalize
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say

_INLINE = "base64:"


class BpeTokenizer(Tokenizer):
    """The pieces of a sentencepiece model that ``train_bpe`` made, from id 1; id 0 is reserved.

    The attribute ``model`` holds the content of the model file. The content becomes part of a checkpoint, so a tokenizer can be
    built from its description without the file.

    Args:
        model: the path of the model file, or its content as ``describe`` writes it.

    Errors: FileNotFoundError; ValueError for a file that is no such model, or names a character that no piece writes.
    """

    def __init__(self, model: str) -> None:
        content = _content(model)
        self.model = _INLINE + base64.b64encode(content).decode()
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ValueError(f"model {model[:80]!r} is no sentencepiece model") from error
        specials = (self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id(), self._pieces.pad_id())
        if specials != (0, -1, -1, -1):
            raise ValueError(
                f"model {model[:80]!r} has the ids {specials} for unknown, begin, end and padding, not 0, -1, -1, -1: "
                "make it with robust_asr.text.bpe"
            )

    @property
    def size(self) -> int:
        return self._pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        text = normalize(text)
        tokens = self._pieces.encode(text)
        if self.blank in tokens:
            unknown = sorted({character for character in text if self.blank in self._pieces.encode(character)})
            raise ValueError(f"text {text!r} has {unknown}, which no piece of the model writes")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces(tokens)).strip()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        # sentencepiece writes a space before each word as U+2581.
        written = (self._pieces.id_to_piece(token) if token != self.blank else "" for token in tokens)
        return [piece.replace("\u2581", " ") for piece in written]


def train_bpe(texts: Iterable[str], *, size: int) -> BpeTokenizer:
    """Train a model with ``size`` ids, including the reserved id 0; the same texts give the same model.

    Errors: ValueError if the texts have fewer than ``size`` pieces or more than ``size`` characters.
    """
    content = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(normalize(text) for text in texts),
            model_writer=content,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            # sentencepiece does not normalise, because the texts are normalised by ``robust_asr.text.normalize`` before.
            normalization_rule_name="identity",
            num_threads=1,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"size {size} does not fit the texts: {str(error).splitlines()[-1]}") from error
    return BpeTokenizer(_INLINE + base64.b64encode(content.getvalue()).decode())


def texts_of(path: str) -> Iterator[str]:
    """The texts of a manifest (``.jsonl`` or ``.jsonl.gz``), or the lines of any other file.

    Errors: OSError; ValueError names the file and the line that is no text or no entry of a manifest.
    """
    opened = gzip.open if path.endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if path.endswith((".jsonl", ".jsonl.gz")):
                    yield from [str(supervision["text"]) for supervision in strict_json.loads(line)["supervisions"]]
                else:
                    yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: after line {number}: is not UTF-8") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{path}, line {number}: is no entry of a manifest with texts ({error})") from error


def _content(model: str) -> bytes:
    if model.startswith(_INLINE):
        try:
            return base64.b64decode(model.removeprefix(_INLINE), validate=True)
        except binascii.Error as error:
            raise ValueError(f"model {model[:80]!r} is not written in base64") from error
    if not Path(model).is_file():
        raise FileNotFoundError(f"BpeTokenizer: there is no file {model}")
    return Path(model).read_bytes()


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.text.bpe", description="Learn pieces of words from texts."
    )
    parser.add_argument("texts", nargs="+", help="manifests, or text files of one utterance a line")
    parser.add_argument("out", help="the model to write")
    parser.add_argument("--size", type=int, default=500, help="number of ids, the reserved one included")
    options = parser.parse_args(arguments)
    try:
        tokenizer = train_bpe((text for path in options.texts for text in texts_of(path)), size=options.size)
        with written_whole(Path(options.out)) as path:
            path.write_bytes(_content(tokenizer.model))
    except (ValueError, OSError) as error:
        leave(error)
    say(f"{tokenizer.size} ids in {options.out}")


if __name__ == "__main__":
    main()
