"""A connection of every rank to rank zero, beside the process group: it tells a rank that is slow from one that is gone."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

from robust_asr.text.alignment import printable

# A rank says it before it leaves in good order.
DONE = "0"
# Seconds after which a machine that answers nothing is gone. A process that is merely slow is answered for by its system.
SILENCE = 30
# Seconds in which every rank must have connected; they have all just joined the process group.
_JOIN = 60.0
_LONGEST = 4096


class Peer:
    """The other end of a connection.

    Args:
        connection: one message each way, a line, before it ends.
        name: rank, process and machine, for the user.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.connection = connection
        self.name = name
        connection.settimeout(None)
        for option, value in (
            (socket.SO_KEEPALIVE, 1),
            (socket.TCP_KEEPIDLE, SILENCE // 3),
            (socket.TCP_KEEPINTVL, SILENCE // 6),
            (socket.TCP_KEEPCNT, 4),
        ):
            level = socket.SOL_SOCKET if option == socket.SO_KEEPALIVE else socket.IPPROTO_TCP
            connection.setsockopt(level, option, value)
        # A worker that outlives its killed rank would keep the connection open.
        os.register_at_fork(after_in_child=connection.close)

    def send(self, line: str) -> None:
        """Say it, where there still is somebody to hear it."""
        with contextlib.suppress(OSError):
            self.connection.sendall(_bytes(line))

    def read(self) -> str:
        """What the other said; nothing if it has ended without a word."""
        try:
            return _line(self.connection)
        except OSError:
            return ""


def connect(broadcast: Callable[[Any], Any], *, rank: int, world_size: int) -> list[Peer]:
    """The peers of a rank: rank zero has all others, and they have rank zero. Every rank must call it.

    Args:
        broadcast: an object of rank zero to all ranks, through the process group.

    Errors: ConnectionError where a rank cannot be reached.
    """
    whose = f"(process {os.getpid()} on {socket.gethostname()})"
    if rank == 0:
        with _server(world_size) as server:
            password = secrets.token_hex(16)
            broadcast((server.getsockname()[1], password, whose))
            return _accepted(server, password, world_size - 1)
    port, password, first = broadcast(None)
    address = os.environ["MASTER_ADDR"]
    try:
        connection = socket.create_connection((address, port), timeout=_JOIN)
        connection.sendall(_bytes(f"{password} rank {rank} {whose}"))
    except OSError as error:
        raise ConnectionError(f"rank {rank} does not reach rank 0 at {address}, port {port}: {error}") from error
    return [Peer(connection, f"rank 0 {first}")]


def _server(backlog: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=both)


def _accepted(server: socket.socket, password: str, count: int) -> list[Peer]:
    server.settimeout(_JOIN)
    peers: list[Peer] = []
    while len(peers) < count:
        try:
            connection, _ = server.accept()
        except TimeoutError as error:
            raise ConnectionError(
                f"{len(peers)} of {count} ranks have connected to rank 0 within {_JOIN:g} s"
            ) from error
        connection.settimeout(_JOIN)
        with contextlib.suppress(OSError):
            said, _, name = _line(connection).partition(" ")
            if secrets.compare_digest(said.encode(), password.encode()):
                peers.append(Peer(connection, name))
                continue
        connection.close()
    return peers


def _bytes(line: str) -> bytes:
    return (line.replace("\n", " ")[: _LONGEST // 4] + "\n").encode(errors="replace")


def _line(connection: socket.socket) -> str:
    content = b""
    while len(content) < _LONGEST and not content.endswith(b"\n"):
        block = connection.recv(_LONGEST)
        if not block:
            break
        content += block
    return printable(content.decode(errors="replace").split("\n")[0])
