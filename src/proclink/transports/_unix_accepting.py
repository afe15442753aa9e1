"""The bound side of ``pipe`` and of the control sockets of ``shm``."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from proclink._address import Address
from proclink._errors import AddressError, ProclinkError
from proclink._fork import new_descriptors
from proclink._options import Options
from proclink._registry import Claim, claim
from proclink.transports._accepting import SocketEndpoint
from proclink.transports._contract import Gate
from proclink.transports._sockets import Socket, SocketScheme
from proclink.transports._unix import fits

_BACKLOG = 512


class UnixEndpoint(SocketEndpoint):
    """A listening Unix socket and the ownership of its name."""

    def __init__(
        self, address: Address, path: Path, scheme: SocketScheme, options: Options, gate: Gate
    ) -> None:
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


def _bind(sock: socket.socket, path: Path) -> None:
    """Binds to a path of any length: a long one by a short name that is then changed."""
    if fits(path):
        sock.bind(str(path))
        return
    held = new_descriptors()
    directory = held.open_path(str(path.parent))
    try:
        short = f".{os.getpid()}-{threading.get_native_id()}"
        # One with these numbers, which come again in a container, was killed in the middle of this.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(short, dir_fd=directory)
        sock.bind(f"/proc/self/fd/{directory}/{short}")
        # The path is free: its owner's lock is held.
        os.rename(short, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        held.close()
