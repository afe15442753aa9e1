"""Named Unix sockets: what ``pipe`` and the control sockets of ``shm`` have in common."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

from proclink._address import Address
from proclink._errors import (
    AddressBlocked,
    AddressError,
    ConnectionFailed,
    PeerRefused,
    ProclinkError,
)
from proclink._options import Options
from proclink._peer import Peer, peer_of_unix_socket
from proclink._registry import Claim, claim, socket_path
from proclink.transports._contract import Gate
from proclink.transports._sockets import (
    Patience,
    Socket,
    SocketEndpoint,
    SocketScheme,
    new_descriptors,
)

_LONGEST_SOCKET_ADDRESS = 107  # bytes, unix(7)
_BACKLOG = 512
_NOBODY_THERE = {errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN}


def path_of(address: Address) -> Path:
    """Where the socket of an address lives."""
    return Path(address.path) if address.path else socket_path(address.name, address.scheme)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_ADDRESS


def _bind(sock: socket.socket, path: Path) -> None:
    """Binds to a path of any length: a long one by a short name that is then changed."""
    if _fits(path):
        sock.bind(str(path))
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f".{os.getpid()}-{threading.get_native_id()}"
        sock.bind(f"/proc/self/fd/{directory}/{short}")
        # The path is free: its owner's lock is held.
        os.rename(short, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def _connect(sock: socket.socket, path: Path) -> None:
    """Connects to a path of any length."""
    if _fits(path):
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


class UnixEndpoint(SocketEndpoint):
    """A listening Unix socket and the ownership of its name."""

    def __init__(
        self, address: Address, scheme: SocketScheme, options: Options, gate: Gate
    ) -> None:
        path = path_of(address)
        try:
            self._claim = claim(path, str(address))
        except ProclinkError:
            raise
        except OSError as error:
            raise AddressError(f"cannot make a socket at {path}: {error.strerror}") from error
        try:
            sock = _listening_socket(self._claim)
            try:
                super().__init__(address, sock, scheme, options, gate)
            except BaseException:
                sock.close()
                raise
        except BaseException:
            self._claim.release()
            raise

    def close(self) -> None:
        """Stops accepting, and gives the name back."""
        super().close()
        self._claim.release()


def _listening_socket(claim: Claim) -> socket.socket:
    sock = Socket(socket.AF_UNIX)
    try:
        # The mode the socket file is born with (no umask race, unlike chmod after bind).
        os.fchmod(sock.fileno(), 0o600)
        _bind(sock, claim.path)
        claim.made_socket()
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_unix(address: Address, patience: Patience) -> socket.socket:
    """A connected socket, once a server listens.

    Raises:
        NoServer: None did in time.
        AddressBlocked: Something that is no socket is in the way.
    """
    path = path_of(address)
    while True:
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
            patience.pause(address, error.strerror or str(error))
        except BaseException:
            sock.close()
            raise
        else:
            return sock
