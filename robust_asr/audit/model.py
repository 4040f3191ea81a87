"""The model that is audited: by the name of the hub, a folder, a checkpoint, or a function of the user's own."""

from __future__ import annotations

import importlib
from pathlib import Path

from robust_asr import checkpoint
from robust_asr.models.base import Recognizer
from robust_asr.models.hf_ctc import HuggingFaceCTC
from robust_asr.models.hf_files import folder_of, read_json
from robust_asr.models.whisper import Whisper
from robust_asr.storage import trust

_EXAMPLE = "openai/whisper-tiny.en or facebook/wav2vec2-base-960h"


def load_model(name: str, *, language: str | None = None) -> Recognizer:
    """The recogniser of a name, in evaluation mode.

    Args:
        name: ``package.module:factory``, a function without arguments that returns a ``Recognizer``, whose package the command
            line has opened; a checkpoint of this project, or a run folder, of which the last checkpoint is taken; a folder in
            Hugging Face's layout, or the name of one on its hub, of a Whisper or a CTC model.
        language: of a multilingual Whisper.

    Errors: ValueError says what is missing or not accepted; FileNotFoundError for a checkpoint that is not there.
    """
    path = Path(name).expanduser()
    if ":" in name and not path.exists():
        recognizer = _made_by(name)
    elif path.suffix == ".ckpt" or path.is_file():
        recognizer = checkpoint.load(str(path))
    elif (path / "checkpoints").is_dir():
        recognizer = checkpoint.load(str(path / "checkpoints" / "last.ckpt"))
    else:
        return _hugging_face(str(path), language=language)
    if language is not None:
        raise ValueError(f"language: only a multilingual Whisper takes one, {name} is a {type(recognizer).__name__}")
    return recognizer.eval()


def title_of(name: str) -> str:
    """A short name for tables: the last part of a path or of a function's name."""
    return name.rstrip("/").split("/")[-1].split(":")[-1].removesuffix(".ckpt") or "model"


def _hugging_face(name: str, *, language: str | None) -> Recognizer:
    folder = folder_of(name, example=_EXAMPLE)
    kind = read_json(folder, "config.json", kind="Whisper or CTC model").get("model_type")
    if kind == "whisper":
        return Whisper(str(folder), language=language)
    if language is not None:
        raise ValueError(f"language: only a multilingual Whisper takes one, {folder} is of type {kind!r}")
    return HuggingFaceCTC(str(folder))


def _made_by(name: str) -> Recognizer:
    module, _, function = name.partition(":")
    trust.check_name(f"{module}.{function}", field="model")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model: there is no {name!r} ({error})") from error
    recognizer = factory() if callable(factory) else factory
    if not isinstance(recognizer, Recognizer):
        raise ValueError(
            f"model: {name} gives a {type(recognizer).__name__}, not a Recognizer; "
            "robust_asr.models.adapter.CTCAdapter makes one of a module with a CTC head"
        )
    return recognizer
