"""What a configuration may name, asked before jsonargparse reads it, and again whenever jsonargparse would import.

``check_arguments`` gives the sentence a user reads; ``guarded_imports`` holds for every form it might have missed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.command_line.guarded_imports import guarded_imports
from lightning_modules.command_line.strict_yaml import MAX_BYTES, RefusedYAML, check, load_texts, where_it_breaks
from lightning_modules.command_line.written import beside
from robust_asr.storage import trust

__all__ = ["check_arguments", "guarded_imports"]

_SUFFIXES = {".yaml", ".yml"}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
# Fields that hold objects, for which a text alone names a class.
_OBJECTS = frozenset(
    "model data optimizer lr_scheduler callbacks logger strategy plugins profiler recognizer tokenizer".split()
)
_OWN_FILES = ("fsdp", "deepspeed", "model_parallel", "xla")


def check_arguments(argv: list[str]) -> None:
    """ValueError names the file and field of a command line that are refused. Nothing named is imported.

    Every file that is named by ``--config`` or as the value of a field is read, and those that it names. The packages of
    ``--allow_module`` are opened; a file cannot open one.
    """
    if os.environ.get("JSONARGPARSE_DEFAULT_ENV", "").lower() == "true":
        raise ValueError(
            "JSONARGPARSE_DEFAULT_ENV is set: settings come from files and the command line only; unset it"
        )
    pairs = list(_options(argv))
    for key, value in pairs:
        if key == "allow_module":
            for name in re.findall(r"[^\s\[\],'\"]+", value):
                trust.allow_module(name)
    walk = _Walk()
    for key, value in pairs:
        if is_config(key):
            walk.file(value, Path.cwd(), field=f"--{key}")
        elif key != "allow_module":
            walk.argument(value, field=f"--{key}" if key else "the command line")


def check_settings(settings: Any, folder: Path, *, where: str) -> None:
    """ValueError names the field of settings, put together from files beside ``folder``, that may not be what it is."""
    _Walk().value(settings, folder, field="", where=where)


def is_config(key: str) -> bool:
    """Whether an option names a configuration file; jsonargparse takes abbreviations."""
    return key.rsplit(".", 1)[-1] == "config" or (key != "" and "config".startswith(key))


def _options(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of option and value; the option is "" for a value that stands alone."""
    key = ""
    for token in argv:
        if token.startswith("-c") or token.startswith("--"):
            if token.startswith("-c") and token != "-c":
                token = f"--config={token[2:]}"
            key, equals, value = ("--config" if token == "-c" else token).partition("=")
            key = key.lstrip("-").removesuffix("+")
            if not equals:
                continue
        else:
            value = token
        yield key, value


class _Walk:
    """Visits values and the files that they name, each file once."""

    def __init__(self) -> None:
        self.files: set[Path] = set()

    def file(self, name: str, folder: Path, *, field: str) -> None:
        path = beside(folder, name)
        if "://" in name or name == "-" or not path.is_file():
            raise ValueError(f"{field}: {name} is not a local configuration file")
        path = path.resolve()
        if path in self.files:
            return
        self.files.add(path)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: has {path.stat().st_size} bytes, a configuration has at most {MAX_BYTES}")
        try:
            content = load_texts(path.read_text(encoding="utf-8"), where=str(path))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as YAML ({where_it_breaks(error)})") from error
        if isinstance(content, str):
            # jsonargparse would look for a class of that name, and show it.
            raise ValueError(f"{field}: {path} holds no map of settings")
        self.value(content, path.parent, field="", where=f"{path}: ")

    def argument(self, value: str, *, field: str) -> None:
        try:
            check(value, where=field)
        except yaml.YAMLError:
            return
        self.value(value, Path.cwd(), field=field, where="")

    def value(self, value: Any, folder: Path, *, field: str, where: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if str(key).startswith("__"):
                    raise ValueError(f"{where}{field}: the key {key} is refused")
                self.value(item, folder, field=f"{field}.{key}".lstrip("."), where=where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.value(item, folder, field=f"{field}[{index}]", where=where)
        elif isinstance(value, str):
            self.text(value, folder, field=field, where=where)

    def text(self, text: str, folder: Path, *, field: str, where: str) -> None:
        last = re.sub(r"\[\d+\]", "", field).rsplit(".", 1)[-1].lstrip("-")
        if last == "allow_module":
            raise ValueError(f"{where}{field}: a package is opened on the command line only, by --allow_module {text}")
        if last == "strategy" and text.startswith(_OWN_FILES):
            raise ValueError(
                f"{where}{field}: {text} writes checkpoint files of its own, which nothing checks; use ddp"
            )
        is_yaml = Path(text).suffix.lower() in _SUFFIXES
        if ("://" in text and is_yaml) or ((is_yaml or last in _OBJECTS) and _is_file(folder, text)):
            self.file(text, folder, field=f"{where}{field}")
        elif last == "class_path" or (last in _OBJECTS and _DOTTED.fullmatch(text)):
            # A name without dots is looked up among the classes that are already imported.
            if "." in text or not text.isidentifier():
                trust.check_name(text, field=f"{where}{field}")
        elif "class_path" in text:
            self.nested(text, folder, field=field, where=where)

    def nested(self, text: str, folder: Path, *, field: str, where: str) -> None:
        """A text that may be YAML itself: jsonargparse parses it where the field is not a text."""
        try:
            content = load_texts(text, where=f"{where}{field}")
        except RefusedYAML:
            raise
        except yaml.YAMLError:
            return
        if not isinstance(content, str):
            self.value(content, folder, field=field, where=where)


def _is_file(folder: Path, text: str) -> bool:
    try:
        return beside(folder, text).is_file()
    except (OSError, ValueError):
        # Too long, or with a null byte: no name of a file.
        return False
