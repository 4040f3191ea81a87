"""What the command line prints: one sentence for a mistake, and no message that asks for no action."""

from __future__ import annotations

import logging
import re
import warnings


def silence() -> None:
    """Silence the messages that Lightning prints at every start or checkpoint and that ask for no action."""
    said = ("litlogger", "litmodels", "`weights_only` was not set")
    for handler in logging.getLogger("pytorch_lightning").handlers:
        handler.addFilter(lambda record: not any(text in record.getMessage() for text in said))
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # Recognition and its callbacks sum these over the ranks themselves, exactly, before they log them.
    synced = r"val/(wer|strong_wer|single_step_wer|[^']+/(loss|wer|cer|empty))"
    warnings.filterwarnings("ignore", message=rf"It is recommended to use `self\.log\('{synced}'")
    # AttackSet writes its predictions to disk and returns none.
    warnings.filterwarnings("ignore", message="predict returned None.*")


def in_one_sentence(message: str) -> str:
    """A message of jsonargparse in one line, without the headings of its list of types."""
    noise = r"(Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Does not validate against any)"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not re.match(noise, line)) or message
