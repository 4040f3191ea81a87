"""Texts that a recogniser cannot write are named together, before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from robust_asr.models.base import Recognizer
from robust_asr.text import Tokenizer

_IDS_OF_A_PART = 5
_PIECES = 20


def check_writable(recognizer: Recognizer | Tokenizer, utterances: Iterable[tuple[str, str, str]]) -> None:
    """Looks at every (part, id, text).

    Errors: ValueError with the number of texts that the recogniser cannot write, what it is in them, and ids of each part.
    """
    pieces: Counter[str] = Counter()
    ids: dict[str, list[str]] = {}
    for part, utterance, text in utterances:
        if unwritable := recognizer.unwritable(text):
            pieces.update(unwritable)
            ids.setdefault(part, []).append(utterance)
    if not ids:
        return
    found = ", ".join(f"{piece!r} in {count}" for piece, count in pieces.most_common(_PIECES))
    more = f" and {len(pieces) - _PIECES} others" if len(pieces) > _PIECES else ""
    raise ValueError(
        f"the recogniser cannot write {sum(map(len, ids.values()))} of the texts ({found}{more}): "
        f"{'; '.join(f'{part}: {_shown(names)}' for part, names in ids.items())}; "
        "`python -m datamodules.prepare ... --alphabet` leaves them out"
    )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _IDS_OF_A_PART} others" if len(names) > _IDS_OF_A_PART else ""
    return ", ".join(names[:_IDS_OF_A_PART]) + more
