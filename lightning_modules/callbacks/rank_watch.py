"""When one rank of a run ends, the others leave too, with the reason, wherever they wait."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time
from typing import NamedTuple

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback

from lightning_modules.rank_connections import DONE, Peer, connect
from lightning_modules.trainer_internals import after_process_group, end_child_observer, wait_for_living_ranks
from robust_asr.text.mistakes import sentence
from robust_asr.text.terminal import say

# Units: seconds. What a rank gets to notice the same failure and say it itself; to end after it has failed; and what news of
# another rank's end takes to arrive.
NOTICE, ENDING, NEWS = 3.0, 30.0, 2.0


_STARTED_BY = "ROBUST_ASR_STARTED_BY"


class News(NamedTuple):
    """Why the run cannot go on, and the exit code that follows."""

    why: str
    code: int


class RankWatch(Callback):
    """Every rank has a connection to rank zero; one that closes without a farewell says that a rank has ended.

    The system closes the connections of a process however it ends, and answers for one that is slow or stopped: a rank that
    waits for the long work of another is never ended, and one whose machine is gone is noticed within ``SILENCE`` seconds. It
    is the same for ranks of one machine and of many, and for every backend. No rank is watched by its process id, and no
    collective has to fail: a thread ends the process.

    Exit code 1, or that of a rank that was stopped by a signal.
    """

    def __init__(self) -> None:
        self._peers: list[Peer] = []
        self._rank = 0
        self._news: News | None = None
        self._heard, self._leaving = threading.Event(), threading.Event()
        self._done = False
        self._saying = threading.Lock()

    def attach(self, trainer: pl.Trainer) -> None:
        """Begin as soon as the ranks know each other: the first data are read after that.

        Until then a rank that Lightning started looks at the process that started it, which is rank zero.
        """
        after_process_group(trainer, lambda: self._begin(trainer))
        if "LOCAL_RANK" not in os.environ:
            os.environ[_STARTED_BY] = str(os.getpid())
        elif os.environ.get(_STARTED_BY) == str(parent := os.getppid()):
            # torchrun and srun start their ranks themselves: there the name is another run's, from whose process they were called.
            threading.Thread(target=self._watch_parent, args=(parent,), daemon=True).start()

    def _begin(self, trainer: pl.Trainer) -> None:
        if trainer.world_size == 1 or self._peers:
            return
        self._rank = trainer.global_rank
        self._peers = connect(trainer.strategy.broadcast, rank=self._rank, world_size=trainer.world_size)
        # Both would end a run that is sound, or end this process without a word.
        wait_for_living_ranks()
        end_child_observer()
        threading.Thread(target=self._watch, daemon=True, name="rank-watch").start()

    def _watch_parent(self, parent: int) -> None:
        while not self._peers:
            if os.getppid() != parent:
                say(f"error: rank 0 (process {parent}) died before the run began", file=sys.stderr)
                os._exit(1)
            time.sleep(1.0)

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for peer in self._peers:
            selector.register(peer.connection, selectors.EVENT_READ, peer)
        while selector.get_map():
            for entry, _ in selector.select():
                peer: Peer = entry.data
                selector.unregister(peer.connection)
                said = peer.read()
                if said == DONE:
                    continue
                if not self._done:
                    self._hear(_news(said) or News(f"{peer.name} died", 1))
                return

    def _hear(self, news: News) -> None:
        self._news = news
        self._tell(news)
        self._heard.set()
        if self._leaving.wait(NOTICE):
            time.sleep(ENDING)
        self._say()
        os._exit(news.code)

    def _tell(self, news: News) -> None:
        for peer in self._peers:
            peer.send(f"{news.code} {news.why}")

    def _say(self) -> None:
        with self._saying:
            if self._news is None or self._leaving.is_set():
                return
            self._leaving.set()
            leaves = f"{self._news.why}; rank {self._rank} leaves too, and what was saved stays"
            say(leaves if self._news.code > 2 else f"error: {leaves}", file=sys.stderr)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._done = True
        for peer in self._peers:
            peer.send(DONE)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not self._peers:
            return
        if _may_follow(exception) and self._heard.wait(NEWS) and self._news is not None:
            self._say()
            raise SystemExit(self._news.code)
        self._leaving.set()
        news = self._own(exception)
        self._tell(news)
        # What ends the process may wait for ranks that are gone.
        last = threading.Timer(ENDING, os._exit, (news.code,))
        last.daemon = True
        last.start()

    def _own(self, exception: BaseException) -> News:
        if isinstance(exception, SystemExit) and isinstance(exception.code, int) and exception.code > 2:
            return News(f"rank {self._rank} was stopped", exception.code)
        whose = f"rank {self._rank} (process {os.getpid()} on {socket.gethostname()})"
        return News(f"{whose} failed: {sentence(exception)[:500]}", 1)


def _may_follow(exception: BaseException) -> bool:
    """Whether a collective may have raised it because another rank is gone."""
    return type(exception) is RuntimeError or isinstance(exception, dist.DistError)


def _news(said: str) -> News | None:
    code, _, why = said.partition(" ")
    return News(sentence(why), int(code)) if code.isdecimal() and why else None
