"""Who is at the other end, as the kernel tells it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import struct
import sys

_SO_PEERPIDFD = 77  # Linux 6.5, unix(7)


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end. ``None`` where the system cannot say.

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


def process_handle(sock: socket.socket, peer: Peer) -> int:
    """A descriptor that becomes readable when the peer's process ends; -1 where there is none."""
    if sys.platform != "linux":
        return -1
    with contextlib.suppress(OSError):
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    # Before Linux 6.5. The process lives, or its socket would have ended: the next sleep sees both.
    if peer.pid is not None:
        with contextlib.suppress(OSError):
            return os.pidfd_open(peer.pid)
    return -1
