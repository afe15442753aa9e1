"""One end of a link, for ordinary (blocking) code."""

from __future__ import annotations

import io
import logging
import operator
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from proclink import _core
from proclink._aside import errands, may_wait, report, warn_of_unclosed
from proclink._binding import Binding
from proclink._channels import Channels
from proclink._core import Event
from proclink._errors import (
    BufferTooSmall,
    Disconnected,
    ForkedLink,
    LinkClosed,
    MessageTooLarge,
    OutOfResources,
    PeerClosed,
    TimedOut,
)
from proclink._events import (
    NOT_CONNECTED,
    disconnection,
    entered,
    is_end,
    is_long_lease,
    lease_of,
    occupied,
)
from proclink._loan import Loan
from proclink._options import LARGEST_MESSAGE, Options
from proclink._peer import Peer
from proclink._state import State
from proclink._unique import Unique
from proclink.transports._contract import Channel, Connection

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer


class _NoChannel:
    """Stands where a channel would while there is none: every call says so at once."""

    def _event(self, timeout: float | None) -> Event:
        return Event(NOT_CONNECTED, _core.seconds(timeout))

    def send(self, _message: Buffer, timeout: float | None) -> Event:
        return self._event(timeout)

    def send_many(self, _messages: Iterable[Buffer], timeout: float | None) -> Event:
        return self._event(timeout)

    def recv(self, timeout: float | None) -> Event:
        return self._event(timeout)

    def recv_many(self, _most: int, timeout: float | None) -> Event:
        return self._event(timeout)

    def recv_into(self, _target: Buffer, timeout: float | None) -> Event:
        return self._event(timeout)

    def peer_alive(self) -> bool:
        return False

    def has_message(self) -> bool:
        return False

    send_leaser = receive_leaser = last_error = 0


_NO_CHANNEL: Any = _NoChannel()


class Link(Unique):
    """One end of a two-way, message-oriented link. Made by :func:`bind`, :func:`connect`, `accept`.

    A message arrives whole, once, and in order, or not at all. Any number of threads may use a
    link: messages are never interleaved. Every ``timeout`` is in seconds; ``None`` waits, ``0``
    only tries. A wait ends when the peer dies, when the link is closed, and on Ctrl-C.

    When the peer is gone, what it had sent is still received; then calls raise :class:`PeerClosed`
    or :class:`PeerLost`. A *bound* link has one peer after another: a call that needs a peer waits
    for one, and ``recv`` goes on with the next peer's messages when it has given all of the last
    one's. A send is never turned over to a peer it was not meant for: it raises, and the next one
    waits for the next peer, once there is nothing left to receive from the last.
    """

    __slots__ = (
        "__weakref__",
        "_binding",
        "_channel",
        "_channels",
        "_corrupt",
        "_last_end",
        "_log",
        "_options",
        "_origin",
        "_peer",
        "_url",
    )

    _instead = "pass its address and connect there"

    def __init__(
        self, url: str, options: Options, channels: Channels, binding: Binding | None = None
    ) -> None:
        # First: a signal handler may run in it, and raise; without channels nothing needs an end.
        self._origin = _core.Origin()
        self._url = url
        self._options = options
        self._log = options.logger
        self._channels = channels
        self._binding = binding
        self._channel: Channel = _NO_CHANNEL
        self._last_end = _core.PEER_LOST  # how the channel before the present one ended
        self._peer: Peer | None = None
        self._corrupt: str | None = None

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: Buffer, timeout: float | None = None) -> None:
        """Sends one message.

        Args:
            message: Any bytes-like object; an array is sent in C order, as ``bytes()`` would.
            timeout: Seconds to wait for room (and for a peer), ``None`` for ever, 0 to try.

        Raises:
            TimedOut: There was no room, or no peer, in time. Nothing of the message will arrive.
            MessageTooLarge: It is longer than both ends accept. The link is unharmed.
            PeerClosed: The peer closed the link.
            PeerLost: The peer vanished.
            ChannelCorrupt: The peer broke the protocol.
            LinkClosed: This end is closed.
            InUse: This thread is in such a call already, and a signal handler called again.
            TypeError: ``message`` is not bytes-like.

        Example:
            >>> link.send(b"ping", timeout=1.0)
        """
        channel = self._channel
        event = channel.send(message, timeout)
        if event is not None:
            self._send_on(channel, event, message)

    def _send_on(self, channel: Channel, event: Event | None, message: Buffer) -> None:
        while event is not None:
            if event.status == _core.TOO_LARGE:
                raise self._too_large(channel, message)
            left = self._after_send(channel, event)
            channel = self._channel
            event = channel.send(message, left)

    def send_many(self, messages: Iterable[Buffer], timeout: float | None = None) -> None:
        """Sends several messages with as few system calls as possible.

        Each arrives as a message of its own, as from :meth:`send`, which also tells the arguments
        and errors. An error's ``sent`` says how many of the messages were sent before it.

        Example:
            >>> link.send_many([b"a", b"b", b"c"])
        """
        batch = tuple(messages)  # which nobody changes while this waits
        done = 0
        channel = self._channel
        outcome = channel.send_many(batch, timeout)
        while not isinstance(outcome, int):
            done += outcome.detail
            if outcome.status == _core.TOO_LARGE:
                raise self._too_large(channel, batch[done], done)
            left = self._after_send(channel, outcome, done)
            channel = self._channel
            outcome = channel.send_many(batch[done:], left)

    def loan(self, size: int, timeout: float | None = None) -> Loan:
        """Room for a message of ``size`` bytes to be written in place, where it will be sent from.

        On ``shm`` the room is the ring itself, so nothing is copied on this side; on the other
        transports, and for a message longer than half a ring, it is an ordinary buffer. Other
        threads' sends wait until the loan is sent or discarded.

        Raises:
            TimedOut: There was no room, or no peer, in time.
            MessageTooLarge: It is longer than both ends accept.
            StillHeld: This thread holds a loan already.
            InUse: See :meth:`send`.
            PeerClosed: See :meth:`send`.
            PeerLost: See :meth:`send`.
            LinkClosed: This end is closed.

        Example:
            >>> with link.loan(8) as room:
            ...     room[:] = b"12345678"
        """
        size = operator.index(size)
        if size < 0:
            raise ValueError(f"a loan cannot have {size} bytes")
        if size > LARGEST_MESSAGE:
            raise MessageTooLarge(size, self._options.max_message)
        timeout = _core.seconds(timeout)
        while True:
            channel = self._channel
            if channel is _NO_CHANNEL:
                outcome: Event | _core.LoanLease | None = Event(NOT_CONNECTED, timeout)
            elif channel.closed:
                outcome = Event(_core.CLOSED, timeout)
            elif isinstance(channel, _core.ShmChannel):
                outcome = channel.loan(size, timeout)
            else:
                outcome = None
            if outcome is None and size > self._max_send(channel):
                raise MessageTooLarge(size, self._max_send(channel))
            if not isinstance(outcome, Event):
                return Loan(self, bytearray(size) if outcome is None else outcome)
            if outcome.status == _core.TOO_LARGE:
                raise MessageTooLarge(size, self._max_send(channel))
            timeout = self._after_send(channel, outcome)

    def _after_send(self, channel: Channel, event: Event, sent: int = 0) -> float | None:
        """Raises what an event of sending means, or gives the seconds left once there is a peer."""
        status, left = event.status, event.left
        if status == _core.TIMED_OUT:
            raise TimedOut(f"the peer at {self._url} did not make room in time", sent)
        if is_long_lease(status, left):
            self._warn_of_lease(channel.send_leaser, sending=True)
            return left
        if status == _core.NO_RESOURCES:
            raise OutOfResources(channel.last_error, self._url, sent)
        error = occupied(status, self._url, channel.send_leaser, sent, sending=True)
        if error is not None:
            raise error
        self._check_usable(status, sent)
        if status == NOT_CONNECTED:
            return self._await_channel(left, sending=True)
        if status == _core.CLOSED:
            # A receiving thread has seen the end of this channel meanwhile.
            self._use_channels()
            raise disconnection(self._last_end, self._url, "", sent)
        ended = self._ended(channel, status, sent)
        if self._channels.waits and channel.has_message():
            ended.add_note("What it sent before is unread: receive it, and the next peer comes.")
        elif self._channels.waits:
            self._finish(channel, status)
        raise ended

    def _too_large(self, channel: Channel, message: Buffer, sent: int = 0) -> MessageTooLarge:
        return MessageTooLarge(_core.count_bytes(message), self._max_send(channel), sent)

    def _max_send(self, channel: Channel) -> int:
        connection = self._channels.of(channel)
        return self._options.max_message if connection is None else connection.max_send

    # --- receiving --------------------------------------------------------------------------------

    def recv(self, timeout: float | None = None) -> bytes:
        """Receives the next message.

        Raises:
            TimedOut: None came in time.
            PeerClosed: The peer closed the link, and everything it sent was received. (Not this
                and not the next three on a bound link, which goes on with the next peer.)
            PeerLost: The peer vanished.
            MessageTruncated: It vanished in the middle of a message.
            ChannelCorrupt: It broke the protocol.
            LinkClosed: This end is closed.
            StillHeld: This thread holds a view from :meth:`recv_view`.
            InUse: This thread is in such a call already, and a signal handler called again.

        Example:
            >>> message = link.recv(timeout=1.0)
        """
        channel = self._channel
        message = channel.recv(timeout)
        if message:
            return message
        return self._recv_on(channel, message)

    def _recv_on(self, channel: Channel, message: Event | bytes) -> bytes:
        while not isinstance(message, bytes):
            left = self._after_recv(channel, message)
            channel = self._channel
            message = channel.recv(left)
        return message

    def recv_many(self, most: int = 1024, timeout: float | None = None) -> list[bytes]:
        """Receives one message, waiting for it like :meth:`recv`, and those behind it at hand.

        Args:
            most: The most messages to return, at least 1.
            timeout: See :meth:`recv`, which also tells the errors.

        Returns:
            1 to ``most`` messages.

        Example:
            >>> for message in link.recv_many():
            ...     print(message)
        """
        if most < 1:
            raise ValueError(f"recv_many() returns at least 1 message, not {most}")
        channel = self._channel
        messages = channel.recv_many(most, timeout)
        while isinstance(messages, Event):
            left = self._after_recv(channel, messages)
            channel = self._channel
            messages = channel.recv_many(most, left)
        return messages

    def recv_into(self, buffer: Buffer, timeout: float | None = None) -> int:
        """Receives the next message into a writable buffer.

        Args:
            buffer: Any writable bytes-like object, contiguous.
            timeout: See :meth:`recv`, which also tells the other errors.

        Returns:
            The message's length in bytes.

        Raises:
            BufferTooSmall: The message is longer than the buffer. It stays there.

        Example:
            >>> buffer = bytearray(4096)
            >>> length = link.recv_into(buffer)
        """
        channel = self._channel
        outcome = channel.recv_into(buffer, timeout)
        while not isinstance(outcome, int):
            if outcome.status == _core.TOO_SMALL:
                raise BufferTooSmall(outcome.detail, _core.count_bytes(buffer))
            left = self._after_recv(channel, outcome)
            channel = self._channel
            outcome = channel.recv_into(buffer, left)
        return outcome

    def recv_view(self, timeout: float | None = None) -> memoryview:
        """Receives the next message as a read-only view, on ``shm`` without copying it.

        The view looks at the ring itself. Until it is released and every array made from it is
        gone, nothing else is received (:class:`StillHeld`) and its room is not given back to the
        peer: release it soon, best with ``with``. It stays readable even when the link is closed.
        A message that was streamed (longer than half a ring), and every message on the other
        transports, is an ordinary copy.

        Raises:
            TimedOut: See :meth:`recv`, which also tells the other errors.

        Example:
            >>> with link.recv_view() as view:
            ...     total = sum(view)
        """
        while True:
            channel = self._channel
            view: Event | memoryview | bytes
            if isinstance(channel, _core.ShmChannel):
                view = channel.recv_view(timeout)
            else:
                view = channel.recv(timeout)
            if not isinstance(view, Event):
                return memoryview(view)
            timeout = self._after_recv(channel, view)

    def __iter__(self) -> Iterator[bytes]:
        """The messages as they come, until the peer closes the link or this end is closed.

        On a bound link that is for ever. A peer that vanishes raises :class:`PeerLost`, so that a
        cut-off sequence is not taken for a whole one.
        """
        while True:
            try:
                message = self.recv()
            except (PeerClosed, LinkClosed):
                return
            yield message

    def _after_recv(self, channel: Channel, event: Event) -> float | None:
        """Raises what an event of receiving means, or gives the seconds left for the next."""
        status, left = event.status, event.left
        if status == _core.TIMED_OUT:
            raise TimedOut(f"no message came from {self._url} in time")
        if is_long_lease(status, left):
            self._warn_of_lease(channel.receive_leaser, sending=False)
            return left
        if status == _core.NO_RESOURCES:
            raise OutOfResources(channel.last_error, self._url)
        error = occupied(status, self._url, channel.receive_leaser, sending=False)
        if error is not None:
            raise error
        self._check_usable(status)
        if is_end(status):
            ended = self._ended(channel, status)
            if not self._channels.waits:
                raise ended
            self._finish(channel, status)
        return self._await_channel(left, sending=False)

    def _warn_of_lease(self, leaser: int, *, sending: bool) -> None:
        report(
            self._log,
            logging.WARNING,
            "a call has waited for 5 s: %s is in the way",
            lease_of(leaser, self._url, sending=sending),
        )

    # --- the end of a channel, and the next one ---------------------------------------------------

    def _check_usable(self, status: int, sent: int = 0) -> None:
        self._check_origin()
        if self._corrupt is not None:
            raise disconnection(_core.CORRUPT, self._url, self._corrupt, sent)
        if self._channels.closed or (status == _core.CLOSED and not self._channels.waits):
            raise LinkClosed(f"the link {self._url} is closed", sent)

    def _check_origin(self) -> None:
        if not self._origin.is_here():
            raise ForkedLink(
                f"the link {self._url} was made before the fork and belongs to the parent; make "
                "one in the child"
            )

    def _ended(self, channel: Channel, status: int, sent: int = 0) -> Disconnected:
        """Notes that a channel ended; the error that this is."""
        error = disconnection(status, self._url, channel.violation, sent)
        report(self._log, logging.INFO, "%s", error)
        if status == _core.CORRUPT and not self._channels.waits:
            self._corrupt = channel.violation
            channel.close()
        return error

    def _finish(self, channel: Channel, status: int) -> None:
        """Lets go of the channel of a peer that is gone, for the next one to take its place."""
        self._last_end = status
        self._channels.finish(channel)
        self._use_channels()

    def _await_channel(self, left: float | None, *, sending: bool) -> float | None:
        """Waits until there is a channel; gives the seconds left."""
        end = None if left is None else _core.now() + left
        channels = self._channels
        turns = channels.sending if sending else channels.receiving
        with turns.turn(left) as event:
            if event is not None and event.status == _core.ENTERED:
                raise entered(self._url, sending=sending)
            while True:
                seen = channels.changes.count
                self._check_origin()  # a signal handler that ran in this wait may have forked
                if channels.closed:
                    raise LinkClosed(f"the link {self._url} is closed")
                if channels.oldest() is not None:
                    break
                left = None if end is None else max(0.0, end - _core.now())
                # Who had no turn until now has no time left either.
                if event is not None or not channels.changes.wait(seen, left):
                    raise TimedOut(f"no peer came to {self._url} in time")
        self._use_channels()
        return None if end is None else max(0.0, end - _core.now())

    def _use_channels(self) -> None:
        oldest = self._channels.oldest()
        while True:
            if oldest is None:
                self._channel = _NO_CHANNEL
            else:
                self._channel = oldest.channel
                self._peer = oldest.peer
            # Another thread may have been between these lines with an older answer.
            now = self._channels.oldest()
            if now is oldest:
                return
            oldest = now

    # --- what it is -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the link stands, asked of the system now."""
        if self._channels.closed:
            return State.CLOSED
        oldest = self._channels.oldest()
        if oldest is None:
            return State.CONNECTING
        return State.CONNECTED if oldest.channel.peer_alive() else State.DISCONNECTED

    @property
    def peer(self) -> Peer | None:
        """Who is, or last was, at the other end; ``None`` before the first peer."""
        oldest = self._channels.oldest()
        return self._peer if oldest is None else oldest.peer

    @property
    def address(self) -> str:
        """The URL; on ``tcp`` with the port the system picked."""
        return self._url

    def fileno(self) -> NoReturn:
        """Not available: a link is not a descriptor.

        It outlives the channels under it, each with a descriptor of its own; messages wait in
        buffers that no descriptor tells of; and a shared-memory peer rings the doorbell only when
        this end said that it sleeps. A descriptor would look right and miss messages.

        Raises:
            io.UnsupportedOperation: Always.
        """
        raise io.UnsupportedOperation(
            "a link has no file descriptor to wait on; use recv(timeout=...) in a thread"
        )

    def close(self, timeout: float | None = 1.0) -> None:
        """Says goodbye, ends every call in progress, frees everything. Again does nothing.

        What was sent before still reaches the peer, which then hears :class:`PeerClosed`. A message
        that a call of another thread was sending is given up: its call raises :class:`LinkClosed`,
        and the peer drops it. Messages not yet received are dropped. Views stay readable until they
        are released.

        On ``tcp``, what was sent does not always reach a peer that goes on sending without reading,
        because TCP then resets the connection (RFC 2525, 2.17).

        Args:
            timeout: Seconds to wait for a peer that does not read: for the rest of a message that
                was begun and the goodbye, and on ``tcp`` for what was sent before; ``None`` for
                ever. Most often no wait is needed. A peer that took longer hears
                :class:`MessageTruncated` or, where no message was begun, :class:`PeerLost`.
        """
        timeout = _core.seconds(timeout)
        if not self._origin.is_here():
            return
        first = False
        try:
            if may_wait():
                first = self._channels.close(timeout)
            else:  # a finalizer of the user's, in a thread that others wait for
                first = self._channels.shut()
                errands.later(self._channels.close)
        finally:  # also when a signal handler raised
            if self._binding is not None:
                self._binding.close()
        if first:
            report(self._log, logging.INFO, "closed %s", self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        channels = getattr(self, "_channels", None)
        if channels is None or not self._origin.is_here():
            return
        unclosed = not channels.closed
        # Also what an interrupted close has left. This may run in any thread and in the middle
        # of anything, so it waits for nobody.
        if unclosed or channels.oldest() is not None:
            errands.later(channels.close)  # which waits for no peer
        if self._binding is not None:
            self._binding.forget()
        if unclosed:
            warn_of_unclosed(f"unclosed link {self._url}", self)

    def __repr__(self) -> str:
        return f"<proclink.Link {self._url} {self.state.value}>"


def link_of(url: str, options: Options, connection: Connection) -> Link:
    channels = Channels(waits=False)
    channels.deliver(connection)
    link = Link(url, options, channels)
    link._use_channels()
    return link
