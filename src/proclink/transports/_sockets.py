"""What the transports with a socket share: what they own, and what both ends agree on."""

from __future__ import annotations

import socket
from typing import NamedTuple, Protocol

from proclink import _core, _fork
from proclink._handshake import Introduction
from proclink._options import Options
from proclink._peer import Peer
from proclink._spin import spin_nanoseconds
from proclink.transports._contract import Channel


class Terms(NamedTuple):
    """What follows from both ends' introductions.

    Attributes:
        max_send: The longest message that may be sent, in bytes.
        spin: The longest spin before a sleep, in nanoseconds.
    """

    max_send: int
    spin: int


def agree(options: Options, theirs: Introduction) -> Terms:
    """The terms of a channel, from this end's options and the other's introduction."""
    return Terms(
        min(options.max_message, theirs.max_message), spin_nanoseconds(options.spin, theirs.cpus)
    )


def stream_channel(sock: socket.socket, options: Options, terms: Terms) -> Channel:
    """A channel of frames over a connected socket, which it takes over."""
    sock.setblocking(True)
    with _fork.no_fork:
        channel = _core.StreamChannel(sock, terms.max_send, options.max_message, terms.spin)
        _fork.on_fork(channel, _core.StreamChannel.abandon)
    return channel


class Socket(socket.socket):
    """A stream socket that a forked child does not keep, not even while it is made or closed."""

    def __init__(self, family: int = -1, fileno: int | None = None) -> None:
        with _fork.no_fork:
            super().__init__(family, socket.SOCK_STREAM, fileno=fileno)
            _fork.on_fork(self, Socket.close)

    def accept(self) -> tuple[Socket, object]:
        """See :meth:`socket.socket.accept`."""
        with _fork.no_fork:
            sock, address = super().accept()
            return Socket(fileno=sock.detach()), address

    def close(self) -> None:
        """Closes the socket."""
        _core.close_socket(self)
        super().close()


class Offer(Protocol):
    """What the bound side prepared for one newcomer."""

    ring_size: int

    def descriptors(self) -> list[int]:
        """Descriptors to hand over with the WELCOME."""
        ...

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        """Makes the channel; takes the socket over."""
        ...

    def withdraw(self) -> None:
        """Frees what was prepared and not handed on."""
        ...


class SocketScheme(Protocol):
    """How one transport differs from the others."""

    number: int

    def identify(self, sock: socket.socket) -> Peer:
        """Who is at the other end.

        Raises:
            PeerRefused: A user that is not allowed.
        """
        ...

    def offer(self, options: Options) -> Offer:
        """Prepares for a newcomer that was admitted."""
        ...


class StreamOffer:
    """A channel that is just the socket."""

    ring_size = 0

    def __init__(self, options: Options) -> None:
        self._options = options

    def descriptors(self) -> list[int]:
        return []

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        return stream_channel(sock, self._options, terms)

    def withdraw(self) -> None:
        pass
