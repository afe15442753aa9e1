"""``tcp://``: a TCP connection with our framing."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - which getaddrinfo() imports when it needs it
import errno
import functools
import socket

from proclink._address import Address
from proclink._errors import (
    AddressError,
    AddressInUse,
    ConnectionFailed,
    ProclinkError,
)
from proclink._fork import importing, new_descriptors
from proclink._options import Options
from proclink._peer import Peer
from proclink.transports._connecting import (
    Passing,
    Patience,
    introduce,
    keep_trying,
    ready,
)
from proclink.transports._contract import Connection, Endpoint, Gate, Listen
from proclink.transports._sockets import (
    Offer,
    Socket,
    StreamOffer,
    agree,
    stream_channel,
)

_BACKLOG = 512
_CONNECT_TIMEOUT = 5.0
_NOBODY_THERE = {
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.ECONNRESET,
    errno.ENOTCONN,  # after a reset that came at once
    errno.ETIMEDOUT,
}
_UNKNOWN_YET = {socket.EAI_AGAIN, socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)}


class _Tcp:
    number = 3

    def identify(self, sock: socket.socket) -> Peer:
        # A small message must not wait for the acknowledgement of the one before (RFC 896).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = sock.getpeername()[:2]
        return Peer(address=str(Address("tcp", host=host, port=port)).removeprefix("tcp://"))

    def offer(self, options: Options) -> Offer:
        return StreamOffer(options)


def _resolve(
    address: Address, *, passive: bool
) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        raise AddressError(f"the host of {address} is no name of one: {error}") from error
    except socket.gaierror as error:
        if error.errno in _UNKNOWN_YET and not passive:
            raise Passing(f"the host is unknown ({error.strerror})") from error
        raise ConnectionFailed(f"the host of {address} is unknown: {error.strerror}") from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]  # type: ignore[misc]


def prepare(address: Address) -> Listen:
    """See :class:`proclink.transports._contract.Transport`."""
    with importing():
        # Not above: an end that only connects needs none of this, nor asyncio.
        from proclink.transports import _accepting  # noqa: F401 - for _listen()

    return functools.partial(_listen, address, *_resolve(address, passive=True)[0])


def _listen(
    address: Address,
    family: socket.AddressFamily,
    sockaddr: tuple[str, int],
    options: Options,
    gate: Gate,
) -> Endpoint:
    from proclink.transports._accepting import SocketEndpoint

    sock = Socket(family)
    try:
        # A restarted server takes its port back at once; a live listener's is still refused.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
        sock.listen(_BACKLOG)
        host, port = sock.getsockname()[:2]
        return SocketEndpoint(Address("tcp", host=host, port=port), sock, _Tcp(), options, gate)
    except BaseException as error:
        sock.close()
        if isinstance(error, ProclinkError) or not isinstance(error, OSError):
            raise
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(str(address)) from None
        raise AddressError(f"cannot listen at {address}: {error.strerror}") from error


def _connected_socket(address: Address, patience: Patience) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers.

    Raises:
        Passing: None does, now.
        ConnectionFailed: None can be reached.
    """
    errors: list[OSError] = []
    for family, sockaddr in _resolve(address, passive=False):
        try:
            return _connect(family, sockaddr, patience.left())
        except OSError as error:
            errors.append(error)
    # One that nobody serves yet tells more than one that this machine has no way to.
    telling = next(filter(_is_passing, errors), errors[0])
    try:
        if _is_passing(telling):
            raise Passing(telling.strerror or "no answer") from telling
        raise ConnectionFailed(f"cannot connect to {address}: {telling}") from telling
    finally:
        del telling, errors  # whose tracebacks hold this frame


def _is_passing(error: OSError) -> bool:
    return isinstance(error, TimeoutError) or error.errno in _NOBODY_THERE


def _connect(
    family: socket.AddressFamily, sockaddr: tuple[str, int], left: float | None
) -> socket.socket:
    sock = Socket(family)
    try:
        sock.settimeout(
            _CONNECT_TIMEOUT if left is None else min(max(left, 0.001), _CONNECT_TIMEOUT)
        )
        sock.connect(sockaddr)
        # On loopback a free ephemeral port can connect to itself (simultaneous open).
        if sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
    except BaseException:
        sock.close()
        raise
    return sock


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""

    def attempt(patience: Patience) -> Connection:
        with contextlib.closing(_connected_socket(address, patience)) as sock:
            try:
                peer = _Tcp().identify(sock)
            except OSError as error:
                raise Passing(f"it hung up ({error.strerror})") from error
            welcome = introduce(sock, _Tcp.number, address, options, patience, new_descriptors())
            ready(sock, _Tcp.number)
            terms = agree(options, welcome)
            return Connection(stream_channel(sock, options, terms), peer, terms.max_send)

    return keep_trying(address, timeout, attempt)
