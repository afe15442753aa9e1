"""``memory://``: inside one process, for users' tests and ours.

The same contract as the other transports, back-pressure and goodbyes included, over two queues.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from proclink import _core, _fork
from proclink._address import Address
from proclink._core import Event
from proclink._errors import AddressInUse, Busy
from proclink._options import Options
from proclink._peer import Peer
from proclink.transports._connecting import Passing, keep_trying
from proclink.transports._contract import Connection, Endpoint, Gate, Listen

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Direction:
    """One queue: a single producer and a single consumer, as in a ring, so it needs no lock.

    Attributes:
        sent: Bytes that were ever put in; only the producer writes it.
        taken: Bytes that were ever taken out; only the consumer writes it.
        changes: Advanced after everything that the other end may wait for.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.messages: collections.deque[bytes] = collections.deque()
        self.sent = 0
        self.taken = 0
        self.changes = _core.EventCount()
        self.sender_closed = False
        self.receiver_closed = False

    def has_room(self, size: int) -> bool:
        # A message longer than the queue may stand in it alone.
        return not self.messages or self.sent - self.taken + size <= self.capacity


class MemoryChannel:
    """One end of a link inside this process."""

    violation = ""
    closed = True  # until it is made
    send_leaser = receive_leaser = last_error = 0

    def __init__(self, outgoing: _Direction, incoming: _Direction, max_send: int) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._max_send = max_send
        self._sending = _core.DirectionLock()
        self._receiving = _core.DirectionLock()
        self.closed = False
        _fork.on_fork(self, MemoryChannel.abandon)

    def __del__(self) -> None:
        # Dropped without a close, by an exception between its making and its link's: the other end
        # is told, as the system tells it of the other transports.
        if not self.closed:
            self.close()

    def send(self, message: Buffer, timeout: float | None) -> Event | None:
        clock = _Clock(timeout)
        payload = _core.as_bytes(message)
        if self.closed:
            return clock.event(_core.CLOSED)
        with self._sending.turn(timeout) as event:
            return self._put(payload, clock) if event is None else event

    def _put(self, message: bytes, clock: _Clock) -> Event | None:
        """With the sending direction held."""
        out = self._outgoing
        size = len(message)
        while True:
            seen = out.changes.count
            if self.closed:
                return clock.event(_core.CLOSED)
            if size > self._max_send:
                return clock.event(_core.TOO_LARGE)
            if out.receiver_closed:
                return clock.event(_core.PEER_CLOSED)
            if out.has_room(size):
                break
            if not out.changes.wait(seen, clock.left()):
                return clock.event(_core.TIMED_OUT)
        # In this order, between which no signal handler runs: the consumer looks at the queue.
        out.sent += size
        try:
            out.messages.append(message)
        finally:  # a signal handler may raise behind it
            out.changes.advance()
        return None

    def send_many(self, messages: Iterable[Buffer], timeout: float | None) -> Event | int:
        clock = _Clock(timeout)
        batch = [_core.as_bytes(message) for message in messages]
        if self.closed:
            return clock.event(_core.CLOSED)
        with self._sending.turn(timeout) as event:
            if event is not None:
                return event
            for count, message in enumerate(batch):
                ended = self._put(message, clock)
                if ended is not None:
                    return Event(ended.status, ended.left, count)
        return len(batch)

    def _take(self, clock: _Clock, longest: int | None = None) -> Event | bytes:
        """With the receiving direction held."""
        incoming = self._incoming
        while True:
            seen = incoming.changes.count
            if self.closed:
                return clock.event(_core.CLOSED)
            # In this order: what was sent before a goodbye is there when the goodbye is seen.
            ended = incoming.sender_closed
            if incoming.messages:
                break
            if ended:
                return clock.event(_core.PEER_CLOSED)
            if not incoming.changes.wait(seen, clock.left()):
                return clock.event(_core.TIMED_OUT)
        size = len(incoming.messages[0])
        if longest is not None and size > longest:
            return clock.event(_core.TOO_SMALL, size)
        incoming.taken += size
        try:
            return incoming.messages.popleft()
        finally:  # a signal handler may raise behind it
            incoming.changes.advance()

    def recv(self, timeout: float | None) -> Event | bytes:
        clock = _Clock(timeout)
        if self.closed:
            return clock.event(_core.CLOSED)
        with self._receiving.turn(timeout) as event:
            return self._take(clock) if event is None else event

    def recv_many(self, most: int, timeout: float | None) -> Event | list[bytes]:
        clock = _Clock(timeout)
        if self.closed:
            return clock.event(_core.CLOSED)
        with self._receiving.turn(timeout) as event:
            if event is not None:
                return event
            first = self._take(clock)
            if not isinstance(first, bytes):
                return first
            messages = [first]
            try:
                while len(messages) < most:
                    more = self._take(_Clock(0))
                    if not isinstance(more, bytes):
                        break
                    messages.append(more)
            except BaseException:  # a signal handler raised: they go back where they were
                self._incoming.taken -= sum(map(len, messages))
                self._incoming.messages.extendleft(reversed(messages))
                raise
            return messages

    def recv_into(self, target: Buffer, timeout: float | None) -> Event | int:
        clock = _Clock(timeout)
        with _core.room(target) as room:  # before a message is taken for it
            if self.closed:
                return clock.event(_core.CLOSED)
            with self._receiving.turn(timeout) as event:
                if event is not None:
                    return event
                message = self._take(clock, len(room))
            if not isinstance(message, bytes):
                return message
            room.fill(message)
            return len(message)

    def peer_alive(self) -> bool:
        return not (self.closed or self._incoming.sender_closed)

    def has_message(self) -> bool:
        return bool(self._incoming.messages)

    def close(self, timeout: float | None = 0.0) -> None:
        self.closed = True
        self._outgoing.sender_closed = True
        self._incoming.receiver_closed = True
        self._sending.close()
        self._receiving.close()
        self._outgoing.changes.advance()
        self._incoming.changes.advance()

    def abandon(self) -> None:
        """The copy of a forked child has nobody at its other end."""
        self.closed = True


class _Clock:
    """The timeout of one call."""

    def __init__(self, timeout: float | None) -> None:
        seconds = _core.seconds(timeout)
        self._end = None if seconds is None else _core.now() + seconds

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - _core.now())

    def event(self, status: int, detail: int = 0) -> Event:
        return Event(status, self.left(), detail)


# --- names ----------------------------------------------------------------------------------------

# Changed by single steps: a signal handler or a finalizer may come in between, and close an
# endpoint in another thread.
_endpoints: dict[str, _MemoryEndpoint] = {}


class _MemoryEndpoint:
    def __init__(self, address: Address, options: Options, gate: Gate) -> None:
        self.address = address
        self.options = options
        self.gate = gate
        # One newcomer at a time; whoever interrupts one that holds it is turned away.
        self.turn = _core.DirectionLock()

    def close(self) -> None:
        if _endpoints.get(self.address.name) is self:
            _endpoints.pop(self.address.name, None)


def prepare(address: Address) -> Listen:
    """See :class:`proclink.transports._contract.Transport`."""
    return functools.partial(_listen, address)


def _listen(address: Address, options: Options, gate: Gate) -> Endpoint:
    endpoint = _MemoryEndpoint(address, options, gate)
    if _endpoints.setdefault(address.name, endpoint) is not endpoint:
        raise AddressInUse(str(address), os.getpid())
    return endpoint


def connect(address: Address, options: Options, timeout: float | None) -> Connection:
    """See :class:`proclink.transports._contract.Transport`."""
    return keep_trying(address, timeout, lambda _: _attempt(address, options))


def _attempt(address: Address, options: Options) -> Connection:
    endpoint = _endpoints.get(address.name)
    if endpoint is None:
        raise Passing("there is no such name in this process")
    there, back = (_Direction(endpoint.options.ring_size) for _ in range(2))
    max_send = min(options.max_message, endpoint.options.max_message)
    peer = Peer(os.getpid(), os.geteuid(), os.getegid())
    theirs = Connection(MemoryChannel(back, there, max_send), peer, max_send)
    ours = Connection(MemoryChannel(there, back, max_send), peer, max_send)
    with endpoint.turn.turn(None) as event:
        delivered = False
        try:
            if event is None and endpoint.gate.admit():
                endpoint.gate.deliver(theirs)
                delivered = True
        finally:  # also when a signal handler raised
            if event is None and not delivered:
                endpoint.gate.withdraw()
    if not delivered:
        if endpoint.gate.closed:
            raise Passing("it is closing")
        raise Busy(f"{address} is a one-to-one end and has its peer already")
    return ours


def _in_child() -> None:
    # The threads that would answer did not come along.
    _endpoints.clear()


_fork.in_child(_in_child)
