"""The connecting side of the transports with a socket: patience, and its half of the handshake."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable

from proclink import _core, _handshake
from proclink._address import Address
from proclink._errors import HandshakeFailed, NoServer, ProclinkError
from proclink._handshake import Introduction, Kind
from proclink._options import Options
from proclink._spin import cpu_mask
from proclink.transports._contract import Connection

_SHORTEST_HANDSHAKE = 0.5
_FIRST_RETRY = 0.001
_LONGEST_RETRY = 0.05


class Passing(Exception):
    """What keeps an attempt from its end and may be over soon: a server that restarts, say."""


class Patience:
    """The time a connecting end has left, and how long to wait before it tries again."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else _core.now() + timeout
        self._pause = _FIRST_RETRY

    def left(self) -> float | None:
        """Seconds left, ``None`` without an end."""
        return None if self._end is None else max(0.0, self._end - _core.now())

    def pause(self, address: Address, passing: Passing) -> None:
        """Waits a little.

        Raises:
            NoServer: No time is left.
        """
        left = self.left()
        if left is not None and left <= 0:
            error = NoServer(f"no server answered at {address}: {passing}")
            raise error from passing.__cause__
        # Nothing tells when a name appears, on any platform, so this looks again: soon, then less
        # and less often.
        time.sleep(self._pause if left is None else min(self._pause, left))
        self._pause = min(self._pause * 2, _LONGEST_RETRY)


def keep_trying(
    address: Address, timeout: float | None, attempt: Callable[[Patience], Connection]
) -> Connection:
    """Makes attempts, at least one, until one comes to something or the time is up.

    Raises:
        NoServer: The time is up; its text and its cause are those of the last attempt.
    """
    patience = Patience(timeout)
    while True:
        try:
            return attempt(patience)
        except Passing as passing:
            patience.pause(address, passing)


def introduce(
    sock: socket.socket,
    scheme_number: int,
    address: Address,
    options: Options,
    patience: Patience,
    descriptors: _core.Descriptors,
    expected_descriptors: int = 0,
) -> Introduction:
    """Sends HELLO and gives the WELCOME; the descriptors that came with it go to ``descriptors``.

    The caller sends READY (:func:`ready`) when it has checked what they are.

    Raises:
        ConnectionFailed: The bound end refused, or does not speak proclink.
        Passing: It hung up, or did not answer in time.
    """
    # A server that is there gets a moment to answer even when no time is left.
    left = patience.left()
    if left is None or left > options.handshake_timeout:
        left = options.handshake_timeout
    # One deadline for all of it: a server that sends a byte now and then gains no time.
    deadline = _core.now() + max(left, _SHORTEST_HANDSHAKE)
    sock.settimeout(max(left, _SHORTEST_HANDSHAKE))
    hello = Introduction(Kind.HELLO, scheme_number, options.max_message, cpus=cpu_mask())
    try:
        # A refusal may already be there, and its sender gone.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(_handshake.pack(hello), socket.MSG_NOSIGNAL)
        data = b""
        while len(data) < _handshake.SIZE:
            sock.settimeout(max(deadline - _core.now(), 1e-6))
            part = _receive_part(sock, _handshake.SIZE - len(data), descriptors)
            if not part:
                raise Passing("it hung up during the handshake")
            data += part
            if not _handshake.looks_right(data):
                raise HandshakeFailed(f"the program at {address} does not speak proclink")
        welcome = _handshake.unpack(data, Kind.WELCOME)
    except ProclinkError:
        raise
    except TimeoutError as error:
        raise Passing("it is there, and did not answer in time") from error
    except ConnectionError as error:
        raise Passing(f"it hung up during the handshake ({error.strerror})") from error
    except OSError as error:
        if error.errno == errno.ENOTCONN:  # after a reset that was told already
            raise Passing("it hung up during the handshake") from error
        raise HandshakeFailed(f"the handshake with {address} failed: {error}") from error
    refused = _handshake.refusal(welcome, str(address))
    if refused is not None:
        raise refused
    if len(descriptors.handles) != expected_descriptors:
        raise HandshakeFailed(f"the server at {address} sent the wrong descriptors")
    return welcome


def _receive_part(sock: socket.socket, size: int, descriptors: _core.Descriptors) -> bytes:
    if sock.family != socket.AF_UNIX:
        return sock.recv(size)
    sock.recv(1, socket.MSG_PEEK)  # waits
    return descriptors.receive(sock.fileno(), size)


def ready(sock: socket.socket, scheme_number: int) -> None:
    """Ends the handshake.

    Raises:
        Passing: The bound end went away meanwhile.
    """
    try:
        sock.sendall(_handshake.pack(Introduction(Kind.READY, scheme_number)), socket.MSG_NOSIGNAL)
    except ConnectionError as error:
        raise Passing(f"it hung up during the handshake ({error.strerror})") from error
