"""``pipe://`` on POSIX systems: a Unix stream socket with our framing."""

from __future__ import annotations

import functools
import socket

from proclink._address import Address
from proclink._fork import importing, new_descriptors
from proclink._options import Options
from proclink._peer import Peer
from proclink.transports._connecting import Patience, introduce, keep_trying, ready
from proclink.transports._contract import Connection, Listen
from proclink.transports._sockets import (
    Offer,
    StreamOffer,
    agree,
    stream_channel,
)
from proclink.transports._unix import connect_unix, path_of, same_user


class _Pipe:
    number = 1

    def identify(self, sock: socket.socket) -> Peer:
        return same_user(sock)

    def offer(self, options: Options) -> Offer:
        return StreamOffer(options)


def prepare(address: Address) -> Listen:
    """See :class:`proclink.transports._contract.Transport`."""
    with importing():
        # Not above: an end that only connects needs none of this, nor asyncio.
        from proclink.transports._unix_accepting import UnixEndpoint

    return functools.partial(UnixEndpoint, address, path_of(address), _Pipe())


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""

    def attempt(patience: Patience) -> Connection:
        with connect_unix(address) as sock:
            peer = same_user(sock)
            welcome = introduce(sock, _Pipe.number, address, options, patience, new_descriptors())
            ready(sock, _Pipe.number)
            terms = agree(options, welcome)
            return Connection(stream_channel(sock, options, terms), peer, terms.max_send)

    return keep_trying(address, timeout, attempt)
