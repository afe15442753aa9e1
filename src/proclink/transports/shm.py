"""``shm://``: two rings in sealed, nameless memory, handed over a Unix control socket."""

from __future__ import annotations

import errno
import functools
import socket
from pathlib import Path

from proclink import _core, _fork
from proclink._address import Address
from proclink._errors import HandshakeFailed, SharedMemoryFull
from proclink._handshake import DESCRIPTORS
from proclink._options import Options
from proclink._peer import Peer
from proclink.transports._connecting import Patience, introduce, keep_trying, ready
from proclink.transports._contract import Channel, Connection, Listen
from proclink.transports._sockets import (
    Offer,
    Terms,
    agree,
)
from proclink.transports._unix import connect_unix, path_of, same_user

_RESERVE = 64 * 1024 * 1024
_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT}


class _Memory:
    """The rings and doorbells of one link, made by the bound end."""

    def __init__(self, options: Options) -> None:
        self.ring_size = options.ring_size
        self._options = options
        need = 2 * options.ring_size
        # Shared memory of a memfd is bounded by nothing but the machine: taking the last of it
        # would have the kernel kill somebody.
        free = _available_memory()
        if free is not None and need + _RESERVE > free:
            raise SharedMemoryFull(need, free)
        self._descriptors = _fork.new_descriptors()
        try:
            with _fork.no_fork:
                self._segment = _core.create_segment(options.ring_size, self._descriptors)
            while len(self._descriptors.handles) < DESCRIPTORS:
                _core.create_doorbell(self._descriptors)
        except OSError as error:
            self.withdraw()
            if error.errno in _NO_ROOM:
                raise SharedMemoryFull(need, None) from error
            raise

    def descriptors(self) -> list[int]:
        return self._descriptors.handles

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        return _channel(
            self._segment, self._descriptors, sock, peer, self._options, terms, creator=True
        )

    def withdraw(self) -> None:
        self._descriptors.close()


def _channel(
    segment: _core.Segment,
    descriptors: _core.Descriptors,
    sock: socket.socket,
    peer: Peer,
    options: Options,
    terms: Terms,
    *,
    creator: bool,
) -> Channel:
    """A channel, which takes over the descriptors and the socket."""
    with _fork.no_fork:
        channel = _core.ShmChannel(
            segment,
            descriptors,
            sock,
            peer.pid or 0,
            creator=creator,
            max_send=terms.max_send,
            max_receive=options.max_message,
            spin=terms.spin,
        )
        _fork.on_fork(channel, _core.ShmChannel.abandon)
    return channel


def _available_memory() -> int | None:
    """Bytes that can be allocated without making room (proc_meminfo(5))."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


class _Shm:
    number = 2

    def identify(self, sock: socket.socket) -> Peer:
        return same_user(sock)

    def offer(self, options: Options) -> Offer:
        return _Memory(options)


def prepare(address: Address) -> Listen:
    """See :class:`proclink.transports._contract.Transport`."""
    with _fork.importing():
        # Not above: an end that only connects needs none of this, nor asyncio.
        from proclink.transports._unix_accepting import UnixEndpoint

    return functools.partial(UnixEndpoint, address, path_of(address), _Shm())


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""
    return keep_trying(address, timeout, lambda patience: _attempt(address, options, patience))


def _attempt(address: Address, options: Options, patience: Patience) -> Connection:
    descriptors = _fork.new_descriptors()
    try:
        with connect_unix(address) as sock:
            peer = same_user(sock)
            welcome = introduce(
                sock, _Shm.number, address, options, patience, descriptors, DESCRIPTORS
            )
            memory, *doorbells = descriptors.handles
            if not all(map(_core.is_doorbell, doorbells)):
                raise HandshakeFailed(f"the server at {address} sent the wrong descriptors")
            if welcome.ring_size > options.max_ring_size:
                raise HandshakeFailed(
                    f"the server at {address} has rings of {welcome.ring_size} bytes, more than "
                    f"the {options.max_ring_size} of max_ring_size="
                )
            try:
                segment = _core.attach_segment(memory, welcome.ring_size)
            except (OSError, ValueError) as error:
                raise HandshakeFailed(
                    f"the memory that {address} sent is not sealed and allocated memory of the "
                    "agreed size"
                ) from error
            ready(sock, _Shm.number)
            terms = agree(options, welcome)
            channel = _channel(segment, descriptors, sock, peer, options, terms, creator=False)
            return Connection(channel, peer, terms.max_send)
    finally:
        descriptors.close()
