"""The channels of one link, oldest first.

Normally there is one. A bound link whose peer went may still have unread messages of it while the
next peer is there already. The link talks to one peer at a time, the oldest, until everything that
one had sent was received: nothing that came is lost, and no answer goes to somebody else.
"""

from __future__ import annotations

import collections
import contextlib

from proclink import _core
from proclink.transports._contract import Channel, Connection

_MOST_UNREAD = 8


class Channels:
    """The channels, and the bound side's say about newcomers (a ``Gate``).

    Attributes:
        waits: Whether a next peer may come.
        changes: Advanced when a channel arrives and when the link is closed.
        sending: The turn of those that wait for a peer to send to.
        receiving: The turn of those that wait for a peer to receive from.
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self.changes = _core.EventCount()
        self.sending = _core.DirectionLock()
        self.receiving = _core.DirectionLock()
        # Changed by single steps, without a lock: the supervisor adds at the end, and must not wait
        # for a thread that a signal handler or a finalizer has interrupted.
        self._connections: collections.deque[Connection] = collections.deque()
        self._expected = False
        self._closed = False

    # --- Gate: called from the supervisor's thread ------------------------------------------------

    def admit(self) -> bool:
        """One peer at a time; a newcomer is the next one as soon as the peer is gone."""
        connections = self._connections.copy()
        if (
            self._closed
            or self._expected
            or (connections and connections[-1].channel.peer_alive())
            or len(connections) >= _MOST_UNREAD
        ):
            return False
        self._expected = True
        return True

    def withdraw(self) -> None:
        """The newcomer failed."""
        self._expected = False

    def deliver(self, connection: Connection) -> None:
        """Takes a channel in."""
        self._connections.append(connection)
        self._expected = False
        self.changes.advance()
        # In this order: either close() sees the channel, or this sees that it was closed.
        if self._closed:
            with contextlib.suppress(ValueError):  # close() took it
                self._connections.remove(connection)
                connection.channel.close()

    # --- the link's side --------------------------------------------------------------------------

    def oldest(self) -> Connection | None:
        """The peer that the link talks to."""
        with contextlib.suppress(IndexError):
            return self._connections[0]
        return None

    def of(self, channel: Channel) -> Connection | None:
        """The connection of a channel that is still among them."""
        return next((c for c in self._connections.copy() if c.channel is channel), None)

    def finish(self, channel: Channel) -> None:
        """Lets go of a channel that has nothing more to give."""
        connection = self.of(channel)
        if connection is not None:
            with contextlib.suppress(ValueError):  # another thread was faster
                self._connections.remove(connection)
        channel.close()

    def close(self, timeout: float | None = 0.0) -> bool:
        """Closes every channel and wakes every waiter; again, ends what was interrupted.

        Args:
            timeout: Seconds that all the goodbyes together may take, ``None`` without an end.

        Returns:
            ``False`` when that was begun before.
        """
        first = self.shut()
        try:
            self._close_all(timeout)
        finally:  # a signal handler raised: nobody is waited for any more
            self._close_all(0.0)
        return first

    def shut(self) -> bool:
        """The first step of closing, which waits for nobody: no call goes on.

        Returns:
            ``False`` when it was done before.
        """
        first, self._closed = not self._closed, True
        self.sending.close()
        self.receiving.close()
        self.changes.advance()
        return first

    def _close_all(self, timeout: float | None) -> None:
        end = None if timeout is None else _core.now() + timeout
        while (connection := self.oldest()) is not None:
            connection.channel.close(None if end is None else max(0.0, end - _core.now()))
            with contextlib.suppress(ValueError):
                self._connections.remove(connection)

    @property
    def closed(self) -> bool:
        """Whether the link was closed."""
        return self._closed
