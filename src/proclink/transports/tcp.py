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
    HandshakeFailed,
    ProclinkError,
)
from proclink._fork import importing, new_descriptors
from proclink._options import Options
from proclink._peer import Peer
from proclink.transports._connecting import Patience, introduce, ready
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
    errno.ECONNRESET,
    errno.ETIMEDOUT,
}


class _Tcp:
    number = 3

    def identify(self, sock: socket.socket) -> Peer:
        # A small message must not wait for the acknowledgement of the one before (RFC 896).
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = sock.getpeername()[:2]
        except OSError as error:
            raise HandshakeFailed(f"the other end hung up: {error}") from error
        return Peer(address=str(Address("tcp", host=host, port=port)).removeprefix("tcp://"))

    def offer(self, options: Options) -> Offer:
        return StreamOffer(options)


def _resolve(
    address: Address, *, passive: bool
) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectionFailed(f"the host of {address} is unknown: {error}") from error
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
    while True:
        reason = ""
        for family, sockaddr in _resolve(address, passive=False):
            left = patience.left()
            sock = Socket(family)
            try:
                sock.settimeout(
                    _CONNECT_TIMEOUT if left is None else min(max(left, 0.001), _CONNECT_TIMEOUT)
                )
                sock.connect(sockaddr)
                # On loopback a free ephemeral port can connect to itself (simultaneous open).
                if sock.getsockname() != sock.getpeername():
                    return sock
                reason = "nobody listens"
            except TimeoutError:
                reason = "no answer"
            except OSError as error:
                if error.errno not in _NOBODY_THERE:
                    sock.close()
                    raise ConnectionFailed(f"cannot connect to {address}: {error}") from error
                reason = error.strerror or str(error)
            except BaseException:
                sock.close()
                raise
            sock.close()
        patience.pause(address, reason)


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""
    patience = Patience(timeout)
    with contextlib.closing(_connected_socket(address, patience)) as sock:
        peer = _Tcp().identify(sock)
        welcome = introduce(sock, _Tcp.number, address, options, patience, new_descriptors())
        ready(sock, _Tcp.number, address)
        terms = agree(options, welcome)
        return Connection(stream_channel(sock, options, terms), peer, terms.max_send)
