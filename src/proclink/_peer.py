"""Who is at the other end, as the kernel tells it."""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple


class Peer(NamedTuple):
    """The process at the other end. ``None`` where the system cannot say.

    Read it by its names: more may come.

    Attributes:
        pid: Its process id when the channel was made.
        uid: Its effective user id then.
        gid: Its effective group id then.
        address: Its network address, ``host:port``, on ``tcp``.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    address: str | None = None


def peer_of_unix_socket(sock: socket.socket) -> Peer:
    """The credentials the kernel noted when the socket was connected (SO_PEERCRED, unix(7))."""
    if sys.platform != "linux":
        return Peer()
    size = struct.calcsize("iII")
    pid, uid, gid = struct.unpack(
        "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return Peer(pid if pid > 0 else None, uid, gid)
