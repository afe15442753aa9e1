"""The end that accepts many clients, for ordinary (blocking) code."""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from proclink import _core
from proclink._aside import report, warn_of_unclosed
from proclink._binding import Binding
from proclink._core import Event
from proclink._errors import (
    ForkedLink,
    InUse,
    LinkClosed,
    TimedOut,
)
from proclink._link import Link, link_of
from proclink._options import Options
from proclink._unique import Unique
from proclink.transports._contract import Connection

if TYPE_CHECKING:
    from typing import Self


class Listener(Unique):
    """Accepts any number of links at one address. Made by :func:`listen`."""

    _instead = "pass its address and connect there"

    def __init__(self, url: str, options: Options) -> None:
        self._options = options
        self._arrivals = _Arrivals()
        self._origin = _core.Origin()
        self._binding = Binding(url, options, self._arrivals)
        self._url = self._binding.url
        report(options.logger, logging.INFO, "listening at %s", self._url)

    @property
    def address(self) -> str:
        """The URL; on ``tcp`` with the port the system picked."""
        return self._url

    def accept(self, timeout: float | None = None) -> Link:
        """The next client's link.

        Clients are let in and checked while nobody is in ``accept``; one that is slow or mute
        delays no other.

        Raises:
            TimedOut: None came in time.
            LinkClosed: The listener is closed.
            InUse: This very thread is in ``accept`` already, and a signal handler called again.
            ForkedLink: The listener was made before a fork, in the parent.
        """
        timeout = _core.seconds(timeout)
        taken = self._arrivals.take(timeout)
        if isinstance(taken, Connection):
            return link_of(self._url, self._options, taken)
        if not self._origin.is_here():
            raise ForkedLink(f"the listener {self._url} belongs to the parent process")
        if taken.status == _core.CLOSED:
            raise LinkClosed(f"the listener {self._url} is closed")
        if taken.status == _core.ENTERED:
            raise InUse(
                f"this thread is accepting at {self._url} already, in a call that this one "
                "interrupted (from a signal handler, say); it may close the listener"
            )
        raise TimedOut(f"no client came to {self._url} in time")

    def __iter__(self) -> Iterator[Link]:
        """The clients' links as they come, until the listener is closed."""
        while True:
            try:
                link = self.accept()
            except LinkClosed:
                return
            yield link

    def close(self) -> None:
        """Stops accepting and gives the address back. Accepted links live on."""
        if not self._origin.is_here():
            return
        first = not self._arrivals.closed
        try:
            self._arrivals.close()
        finally:  # also when a signal handler raised
            self._binding.close()
        if first:
            report(self._options.logger, logging.INFO, "closed %s", self._url)

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
        if not hasattr(self, "_url") or not self._origin.is_here():
            return
        closed = self._arrivals.closed
        self._arrivals.close()
        self._binding.forget()
        if not closed:
            warn_of_unclosed(f"unclosed listener {self._url}", self)

    def __repr__(self) -> str:
        return f"<proclink.Listener {self._url}>"


class _Arrivals:
    """Clients that were let in and wait for ``accept`` (a ``Gate`` that is always open)."""

    def __init__(self) -> None:
        self._accepting = _core.DirectionLock()
        self._changes = _core.EventCount()
        self._waiting: collections.deque[Connection] = collections.deque()
        self._origin = _core.Origin()
        self.closed = False

    def admit(self) -> bool:
        return not self.closed

    def withdraw(self) -> None:
        pass

    def deliver(self, connection: Connection) -> None:
        # In this order: either close() sees the client, or this sees that it was closed.
        self._waiting.append(connection)
        self._changes.advance()
        if self.closed:
            with contextlib.suppress(ValueError):  # close() took it
                self._waiting.remove(connection)
                connection.channel.close()

    def take(self, timeout: float | None) -> Connection | Event:
        """The next client, or an event that says why there is none."""
        end = None if timeout is None else _core.now() + timeout
        with self._accepting.turn(timeout) as event:
            if event is not None:
                return event
            while True:
                seen = self._changes.count
                # A signal handler that ran in this wait may have forked.
                if self.closed or not self._origin.is_here():
                    return Event(_core.CLOSED, None)
                if self._waiting:
                    return self._waiting.popleft()
                left = None if end is None else max(0.0, end - _core.now())
                if not self._changes.wait(seen, left):
                    return Event(_core.TIMED_OUT, None)

    def close(self) -> None:
        self.closed = True
        self._accepting.close()
        self._changes.advance()
        self._close_all()

    def _close_all(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().channel.close()
