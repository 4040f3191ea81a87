"""Recipes name fragments by relative path and add their own few values on top."""

from __future__ import annotations

from pathlib import Path

import yaml

from lightning_modules.command_line.strict_yaml import load_texts

KEY = "fragments"


def expand(arguments: list[str]) -> list[str]:
    """Put ``--trainer=FILE`` and the like before each ``--config`` whose file asks for them.

    A recipe says ``fragments: {trainer: ../../configs/trainer/cpu.yaml}``; paths are relative to the recipe. jsonargparse merges
    what comes later on top of what came before. (It would drop the fragment, silently, if one file held both
    ``trainer: FILE`` and ``trainer.max_epochs: 3``.)
    """
    expanded: list[str] = []
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--config", "-c"):
            recipe = Path(value or (arguments[position + 1] if position + 1 < len(arguments) else ""))
            expanded += _fragments_of(recipe)
        expanded.append(argument)
    return expanded


def _fragments_of(recipe: Path) -> list[str]:
    if not recipe.is_file():
        return []
    try:
        settings = load_texts(recipe.read_text(encoding="utf-8"), where=str(recipe))
    except (yaml.YAMLError, UnicodeDecodeError):
        # config_guard reads it next and says what is wrong with it.
        return []
    fragments = settings.get(KEY) if isinstance(settings, dict) else None
    if not fragments:
        return []
    if not isinstance(fragments, dict):
        raise ValueError(f"{recipe}: {KEY} maps a setting to a file, found {fragments!r}")
    missing = [str(path) for path in fragments.values() if not (recipe.parent / str(path)).is_file()]
    if missing:
        raise FileNotFoundError(f"{recipe}: {KEY} names {', '.join(missing)}, and there is no such file beside it")
    return [f"--{name}={(recipe.parent / path).resolve()}" for name, path in fragments.items()]
