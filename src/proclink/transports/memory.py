"""``memory://``: inside one process, for users' tests and ours.

The same contract as the other transports, back-pressure and goodbyes included, over two queues.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from proclink import _core, _fork
from proclink._address import Address
from proclink._core import Event
from proclink._errors import AddressInUse, Busy
from proclink._options import Options, check_timeout, waitable
from proclink._peer import Peer
from proclink.transports._contract import Connection, Endpoint, Gate
from proclink.transports._sockets import Patience

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Direction:
    """One queue, and the condition both its ends wait on."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.messages: collections.deque[bytes] = collections.deque()
        self.waiting_bytes = 0
        self.changed = threading.Condition()
        self.sender_closed = False
        self.receiver_closed = False

    def has_room(self, size: int) -> bool:
        # A message longer than the queue may stand in it alone.
        return not self.messages or self.waiting_bytes + size <= self.capacity

    def close(self) -> None:
        """Both ends of a direction see that one of them closed."""
        with self.changed:
            self.changed.notify_all()


class MemoryChannel:
    """One end of a link inside this process."""

    violation = ""

    def __init__(self, outgoing: _Direction, incoming: _Direction, max_send: int) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._max_send = max_send
        self.closed = False
        _fork.on_fork(self, MemoryChannel.abandon)

    def send(self, message: Buffer, timeout: float | None) -> Event | None:
        return self._send(_as_bytes(message), _Clock(timeout))

    def _send(self, message: bytes, clock: _Clock) -> Event | None:
        out = self._outgoing
        size = len(message)
        if self.closed:
            return clock.event(_core.CLOSED)
        if size > self._max_send:
            return clock.event(_core.TOO_LARGE)
        with out.changed:
            ended = clock.wait(
                out.changed,
                lambda: out.has_room(size) or self.closed or out.receiver_closed,
            )
            if self.closed:
                return clock.event(_core.CLOSED)
            if out.receiver_closed:
                return clock.event(_core.PEER_CLOSED)
            if not ended:
                return clock.event(_core.TIMED_OUT)
            out.messages.append(message)
            out.waiting_bytes += size
            out.changed.notify_all()
        return None

    def send_many(self, messages: Iterable[Buffer], timeout: float | None) -> Event | int:
        clock = _Clock(timeout)
        batch = [_as_bytes(message) for message in messages]
        for count, message in enumerate(batch):
            event = self._send(message, clock)
            if event is not None:
                return Event(event.status, event.left, count)
        return len(batch)

    def _take(self, clock: _Clock, longest: int | None = None) -> Event | bytes:
        incoming = self._incoming
        if self.closed:
            return clock.event(_core.CLOSED)
        with incoming.changed:
            ended = clock.wait(
                incoming.changed,
                lambda: bool(incoming.messages) or self.closed or incoming.sender_closed,
            )
            if self.closed:
                return clock.event(_core.CLOSED)
            if not incoming.messages:
                return clock.event(_core.PEER_CLOSED if ended else _core.TIMED_OUT)
            if longest is not None and len(incoming.messages[0]) > longest:
                return clock.event(_core.TOO_SMALL, len(incoming.messages[0]))
            message = incoming.messages.popleft()
            incoming.waiting_bytes -= len(message)
            incoming.changed.notify_all()
            return message

    def recv(self, timeout: float | None) -> Event | bytes:
        return self._take(_Clock(timeout))

    def recv_many(self, most: int, timeout: float | None) -> Event | list[bytes]:
        first = self._take(_Clock(timeout))
        if not isinstance(first, bytes):
            return first
        messages = [first]
        while len(messages) < most:
            more = self._take(_Clock(0))
            if not isinstance(more, bytes):
                break
            messages.append(more)
        return messages

    def recv_into(self, target: Buffer, timeout: float | None) -> Event | int:
        with memoryview(target) as view:
            # Before a message is taken for it.
            if view.readonly or not view.c_contiguous:
                raise BufferError("recv_into() needs a writable, contiguous buffer")
            message = self._take(_Clock(timeout), view.nbytes)
            if not isinstance(message, bytes):
                return message
            if message:
                with view.cast("B") as room:
                    room[: len(message)] = message
            return len(message)

    def peer_alive(self) -> bool:
        return not (self.closed or self._incoming.sender_closed)

    def has_message(self) -> bool:
        return bool(self._incoming.messages)

    def close(self) -> None:
        self.closed = True
        self._outgoing.sender_closed = True
        self._incoming.receiver_closed = True
        self._outgoing.close()
        self._incoming.close()

    def abandon(self) -> None:
        """The copy of a forked child has nobody at its other end."""
        self.closed = True


class _Clock:
    """The timeout of one call."""

    def __init__(self, timeout: float | None) -> None:
        check_timeout(timeout)
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def wait(self, condition: threading.Condition, ready: Callable[[], bool]) -> bool:
        return condition.wait_for(ready, waitable(self.left()))

    def event(self, status: int, detail: int = 0) -> Event:
        return Event(status, self.left(), detail)


def _as_bytes(message: Buffer) -> bytes:
    return message if type(message) is bytes else memoryview(message).tobytes()


# --- names ----------------------------------------------------------------------------------------

_lock = threading.Lock()
_endpoints: dict[str, _MemoryEndpoint] = {}


class _MemoryEndpoint:
    def __init__(self, address: Address, options: Options, gate: Gate) -> None:
        self.address = address
        self.options = options
        self.gate = gate

    def close(self) -> None:
        with _lock:
            if _endpoints.get(self.address.name) is self:
                del _endpoints[self.address.name]


def listen(address: Address, options: Options, gate: Gate) -> Endpoint:
    """See :class:`proclink.transports._contract.Transport`."""
    with _lock:
        if address.name in _endpoints:
            raise AddressInUse(str(address), os.getpid())
        endpoint = _endpoints[address.name] = _MemoryEndpoint(address, options, gate)
    return endpoint


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""
    patience = Patience(timeout)
    while True:
        with _lock:
            endpoint = _endpoints.get(address.name)
        if endpoint is not None:
            break
        patience.pause(address, "there is no such name in this process")
    if not endpoint.gate.admit():
        raise Busy(f"{address} is a one-to-one end and has its peer already")
    there, back = (_Direction(endpoint.options.ring_size) for _ in range(2))
    max_send = min(options.max_message, endpoint.options.max_message)
    peer = Peer(os.getpid(), os.geteuid(), os.getegid())
    endpoint.gate.deliver(Connection(MemoryChannel(back, there, max_send), peer, max_send))
    return Connection(MemoryChannel(there, back, max_send), peer, max_send)
