"""``shm://``: two rings in sealed, nameless memory, handed over a Unix control socket."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from proclink import _core, _fork
from proclink._address import Address
from proclink._errors import HandshakeFailed, SharedMemoryFull
from proclink._handshake import DESCRIPTORS
from proclink._options import Options
from proclink._peer import Peer, process_handle
from proclink._supervisor import supervisor
from proclink.transports._contract import Channel, Connection, Endpoint, Gate
from proclink.transports._sockets import Offer, Patience, Terms, agree, close_all, introduce, ready
from proclink.transports._unix import UnixEndpoint, connect_unix, same_user

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
        self._descriptors: list[int] = []
        self._segment: _core.Segment | None = None
        _fork.on_fork(self, _Memory.withdraw)
        try:
            self._segment, memory = _core.create_segment(options.ring_size)
            self._descriptors.append(memory)
            while len(self._descriptors) < DESCRIPTORS:
                self._descriptors.append(_core.create_doorbell())
        except OSError as error:
            self.withdraw()
            if error.errno in _NO_ROOM:
                raise SharedMemoryFull(need, None) from error
            raise

    def descriptors(self) -> list[int]:
        return list(self._descriptors)

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        segment = self._segment
        assert segment is not None  # noqa: S101 - accept() comes before withdraw()
        own_data, own_space, peer_data, peer_space = self._descriptors[1:]
        os.close(self._descriptors[0])
        self._descriptors.clear()
        process = process_handle(sock, peer)
        return _watched(
            _core.ShmChannel(
                segment,
                creator=True,
                own_data=own_data,
                own_space=own_space,
                peer_data=peer_data,
                peer_space=peer_space,
                control=sock.detach(),
                process=process,
                max_send=terms.max_send,
                max_receive=self._options.max_message,
                spin=terms.spin,
            )
        )

    def withdraw(self) -> None:
        close_all(self._descriptors)
        self._segment = None


def _watched(channel: _core.ShmChannel) -> Channel:
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


def prepare() -> None:
    """See :class:`proclink.transports._contract.Transport`."""
    supervisor()


def listen(address: Address, options: Options, gate: Gate) -> Endpoint:
    """See :class:`proclink.transports._contract.Transport`."""
    return UnixEndpoint(address, _Shm(), options, gate)


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""
    patience = Patience(timeout)
    with connect_unix(address, patience) as sock:
        peer = same_user(sock)
        welcome, descriptors = introduce(sock, _Shm.number, address, options, patience, DESCRIPTORS)
        try:
            if not all(map(_core.is_doorbell, descriptors[1:])):
                raise HandshakeFailed(f"the server at {address} sent the wrong descriptors")
            if welcome.ring_size > options.max_ring_size:
                raise HandshakeFailed(
                    f"the server at {address} has rings of {welcome.ring_size} bytes, more than "
                    f"the {options.max_ring_size} of max_ring_size="
                )
            try:
                segment = _core.attach_segment(descriptors[0], welcome.ring_size)
            except (OSError, ValueError) as error:
                raise HandshakeFailed(
                    f"the memory that {address} sent is not sealed and allocated memory of the "
                    "agreed size"
                ) from error
            ready(sock, _Shm.number, address)
            peer_data, peer_space, own_data, own_space = descriptors[1:]
            terms = agree(options, welcome)
            process = process_handle(sock, peer)
            del descriptors[1:]
            channel = _core.ShmChannel(
                segment,
                creator=False,
                own_data=own_data,
                own_space=own_space,
                peer_data=peer_data,
                peer_space=peer_space,
                control=sock.detach(),
                process=process,
                max_send=terms.max_send,
                max_receive=options.max_message,
                spin=terms.spin,
            )
            return Connection(_watched(channel), peer, terms.max_send)
        finally:
            close_all(descriptors)
