"""Named Unix sockets: what ``pipe`` and the control sockets of ``shm`` have in common."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from proclink._address import Address
from proclink._errors import AddressBlocked, ConnectionFailed, PeerRefused
from proclink._fork import new_descriptors
from proclink._peer import Peer, peer_of_unix_socket
from proclink._registry import socket_path
from proclink.transports._connecting import Passing
from proclink.transports._sockets import Socket

_LONGEST_SOCKET_ADDRESS = 107  # bytes, unix(7)
_NOBODY_THERE = {errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN}


def path_of(address: Address) -> Path:
    """Where the socket of an address lives."""
    return Path(address.path) if address.path else socket_path(address.name, address.scheme)


def fits(path: Path) -> bool:
    """Whether a socket address has room for it."""
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_ADDRESS


def _connect(sock: socket.socket, path: Path) -> None:
    """Connects to a path of any length."""
    if fits(path):
        sock.connect(str(path))
        return
    held = new_descriptors()
    try:
        sock.connect(f"/proc/self/fd/{held.open_path(str(path))}")
    finally:
        held.close()


def same_user(sock: socket.socket) -> Peer:
    """The peer, if it runs as the same user as this process.

    Raises:
        PeerRefused: It runs as another user.
    """
    peer = peer_of_unix_socket(sock)
    if peer.uid != os.geteuid():
        raise PeerRefused(
            f"the other end runs as user {peer.uid} (process {peer.pid}), this one as user "
            f"{os.geteuid()}; only the same user is allowed"
        )
    return peer


def connect_unix(address: Address) -> socket.socket:
    """A connected socket.

    Raises:
        Passing: No server listens.
        AddressBlocked: Something that is no socket is in the way.
    """
    path = path_of(address)
    sock = Socket(socket.AF_UNIX)
    try:
        # A full backlog makes a blocking connect wait without end.
        sock.setblocking(False)
        _connect(sock, path)
    except OSError as error:
        sock.close()
        if error.errno == errno.ECONNREFUSED and not path.is_socket() and path.exists():
            raise AddressBlocked(f"{path} is not a socket") from None
        if error.errno == errno.EACCES:
            raise PeerRefused(f"{path} does not let this user in") from None
        if error.errno not in _NOBODY_THERE:
            raise ConnectionFailed(f"cannot connect to {path}: {error.strerror}") from error
        raise Passing(error.strerror or str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock
