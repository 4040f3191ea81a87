"""What an offline W&B run wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning_modules.loggers.wandb_pieces import _records


def records_of(path: Path, *, ended: bool = True) -> list[Any]:
    """The records of a file; of one that has ``ended``, as soon as W&B's service has written its end: ``finish`` returns before."""
    from wandb.proto.wandb_internal_pb2 import Record

    give_up = time.monotonic() + 120
    while True:
        found = [Record.FromString(content) for content in _records(path)]
        whole = any(record.WhichOneof("record_type") == "exit" for record in found)
        if whole or not ended or time.monotonic() > give_up:
            return found
        time.sleep(0.1)
