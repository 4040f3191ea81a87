"""An attack that kills its own process in the middle of its first batch, and notes where each life began."""

from __future__ import annotations

import os
import signal
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from robust_asr.attacks.pgd import PaperPGD
from robust_asr.storage.partial import NOWHERE

_LAST = 10


@dataclass(frozen=True)
class DyingPGD(PaperPGD):
    """``lives`` is a file: one line for each process, the iteration that its first batch began with."""

    _: KW_ONLY
    lives: str = ""

    def _keep(self, partial, outcome, restart, work, run, iteration) -> None:
        super()._keep(partial, outcome, restart, work, run, iteration)
        if partial is NOWHERE:
            return
        path = Path(self.lives)
        known = path.read_text().splitlines() if path.exists() else []
        if str(os.getpid()) not in (line.split()[0] for line in known):
            path.write_text("".join(f"{line}\n" for line in [*known, f"{os.getpid()} {iteration - 1}"]))
        if len(known) == 1 and iteration == _LAST and known[0].split()[0] == str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
