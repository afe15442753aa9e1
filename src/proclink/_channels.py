"""The channels of one link, oldest first.

Normally there is one. A bound link whose peer went may still have unread messages of it while the
next peer is there already. The link talks to one peer at a time, the oldest, until everything that
one had sent was received: nothing that came is lost, and no answer goes to somebody else.
"""

from __future__ import annotations

import threading
import time

from proclink import _core
from proclink.transports._contract import Channel, Connection

_MOST_UNREAD = 8


class Channels:
    """The channels, and the bound side's say about newcomers (a ``Gate``).

    Attributes:
        waits: Whether a next peer may come.
        lock: Held while the channels change.
        changes: Advanced when a channel arrives and when the link is closed.
        sending: The turn of those that wait for a peer to send to.
        receiving: The turn of those that wait for a peer to receive from.
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self.changes = _core.EventCount()
        self.sending = _core.DirectionLock()
        self.receiving = _core.DirectionLock()
        # Entered again by whatever closes links while it is held: a signal handler, a finalizer.
        self.lock = threading.RLock()
        self._connections: list[Connection] = []
        self._expected = False
        self._closed = False

    # --- Gate: called from the supervisor's thread ------------------------------------------------

    def admit(self) -> bool:
        """One peer at a time; a newcomer is the next one as soon as the peer is gone."""
        with self.lock:
            if (
                self._closed
                or self._expected
                or (self._connections and self._connections[-1].channel.peer_alive())
                or len(self._connections) >= _MOST_UNREAD
            ):
                return False
            self._expected = True
            return True

    def withdraw(self) -> None:
        """The newcomer failed."""
        with self.lock:
            self._expected = False

    def deliver(self, connection: Connection) -> None:
        """Takes a channel in."""
        with self.lock:
            self._expected = False
            wanted = not self._closed
            if wanted:
                self._connections = [*self._connections, connection]
        if wanted:
            self.changes.advance()
        else:
            connection.channel.close()

    # --- the link's side --------------------------------------------------------------------------

    def oldest(self) -> Connection | None:
        """The peer that the link talks to."""
        connections = self._connections
        return connections[0] if connections else None

    def of(self, channel: Channel) -> Connection | None:
        """The connection of a channel that is still among them."""
        return next((c for c in self._connections if c.channel is channel), None)

    def finish(self, channel: Channel) -> None:
        """Lets go of a channel that has nothing more to give."""
        with self.lock:
            self._connections = [c for c in self._connections if c.channel is not channel]
        channel.close()

    def close(self, timeout: float | None = 0.0) -> bool:
        """Closes every channel and wakes every waiter. ``False`` when that was done before.

        Args:
            timeout: Seconds that all the goodbyes together may take, ``None`` without an end.
        """
        with self.lock:
            if self._closed:
                return False
            self._closed = True
            connections, self._connections = self._connections, []
        self.sending.close()
        self.receiving.close()
        self.changes.advance()
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while connections:
                left = None if end is None else max(0.0, end - time.monotonic())
                connections.pop(0).channel.close(left)
        finally:  # a signal handler raised: nobody is waited for any more
            for connection in connections:
                connection.channel.close()
        return True

    @property
    def closed(self) -> bool:
        """Whether the link was closed."""
        return self._closed
