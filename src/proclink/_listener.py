"""The end that accepts many clients, for ordinary (blocking) code."""

from __future__ import annotations

import collections
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from proclink import _address, _fork
from proclink._errors import (
    ForkedLink,
    LinkClosed,
    TimedOut,
)
from proclink._link import Link, link_of
from proclink._options import Options, check_timeout, waitable
from proclink.transports import transport_for
from proclink.transports._contract import Connection

if TYPE_CHECKING:
    from typing import Self


class Listener:
    """Accepts any number of links at one address. Made by :func:`listen`."""

    def __init__(self, url: str, options: Options) -> None:
        address = _address.parse(url)
        self._url = url
        self._options = options
        self._arrivals = _Arrivals()
        self._forked = False
        self._endpoint = transport_for(address).listen(address, options, self._arrivals)
        self._url = str(self._endpoint.address)
        _fork.on_fork(self, Listener._note_fork)
        options.logger.info("listening at %s", self._url)

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
            ForkedLink: The listener was made before a fork, in the parent.
        """
        check_timeout(timeout)
        if self._forked:
            raise ForkedLink(f"the listener {self._url} belongs to the parent process")
        connection = self._arrivals.take(timeout)
        if connection is None:
            if self._arrivals.closed:
                raise LinkClosed(f"the listener {self._url} is closed")
            raise TimedOut(f"no client came to {self._url} in time")
        return link_of(self._url, self._options, connection)

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
        if self._forked or self._arrivals.closed:
            return
        self._arrivals.close()
        self._endpoint.close()
        self._options.logger.info("closed %s", self._url)

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
        if hasattr(self, "_endpoint") and not self._arrivals.closed and not self._forked:
            self.close()
            warnings.warn(
                f"unclosed listener {self._url}", ResourceWarning, source=self, stacklevel=2
            )

    def __repr__(self) -> str:
        return f"<proclink.Listener {self._url}>"

    def _note_fork(self) -> None:
        self._forked = True


class _Arrivals:
    """Clients that were let in and wait for ``accept`` (a ``Gate`` that is always open)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: collections.deque[Connection] = collections.deque()
        self.closed = False

    def admit(self) -> bool:
        return not self.closed

    def withdraw(self) -> None:
        pass

    def deliver(self, connection: Connection) -> None:
        with self._changed:
            if not self.closed:
                self._waiting.append(connection)
                self._changed.notify()
                return
        connection.channel.close()

    def take(self, timeout: float | None) -> Connection | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self.closed, waitable(timeout))
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            unwanted, self._waiting = self._waiting, collections.deque()
        for connection in unwanted:
            connection.channel.close()
