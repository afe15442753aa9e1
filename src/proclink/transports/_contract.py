"""What a transport gives: message channels, made by connecting or by listening.

A channel's call gives its plain result when a message went through. Everything else is an
:class:`Event`, which is false. What an event means to the user is decided above, in one place, for
every transport.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from proclink._address import Address
from proclink._core import Event
from proclink._options import Options
from proclink._peer import Peer

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Channel(Protocol):
    """One live connection. Dies with its peer and is never used again."""

    def send(self, message: Buffer, timeout: float | None, /) -> Event | None: ...
    def send_many(self, messages: Iterable[Buffer], timeout: float | None) -> Event | int: ...
    def recv(self, timeout: float | None, /) -> Event | bytes: ...
    def recv_many(self, most: int, timeout: float | None) -> Event | list[bytes]: ...
    def recv_into(self, target: Buffer, timeout: float | None) -> Event | int: ...
    def peer_alive(self) -> bool: ...
    def has_message(self) -> bool: ...
    def close(self, timeout: float | None = 0.0) -> None: ...
    def abandon(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def violation(self) -> str: ...
    @property
    def last_error(self) -> int: ...
    @property
    def receive_leaser(self) -> int: ...
    @property
    def send_leaser(self) -> int: ...


class Connection:
    """A channel with what was agreed about it."""

    __slots__ = ("channel", "max_send", "peer")

    def __init__(self, channel: Channel, peer: Peer, max_send: int) -> None:
        self.channel = channel
        self.peer = peer
        self.max_send = max_send


class Gate(Protocol):
    """The bound side's say about newcomers.

    Called by one thread at a time, the supervisor's mostly, and so never waits.
    """

    def admit(self) -> bool:
        """Reserves a place; ``False`` when there is none."""
        ...

    def withdraw(self) -> None:
        """Gives the reserved place back: the newcomer failed."""
        ...

    def deliver(self, connection: Connection) -> None:
        """Fills the reserved place."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        ...

    def close(self) -> object:
        """Lets nobody in any more, and lets go of those inside. Again does nothing."""
        ...


class Endpoint(Protocol):
    """The bound side of an address."""

    @property
    def address(self) -> Address:
        """The address as bound, with the port the system picked."""
        ...

    def close(self) -> None:
        """Stops accepting and gives the address back. Again does nothing."""
        ...


class Listen(Protocol):
    """Starts accepting newcomers."""

    def __call__(self, options: Options, gate: Gate) -> Endpoint: ...


class Transport(Protocol):
    """What every module beside this one offers."""

    def prepare(self, address: Address) -> Listen:
        """Imports and looks up, in the user's thread, what it takes to listen at an address.

        The listening itself begins in a thread that others wait for. So it may neither log nor
        import what is not there yet, as both take locks that a user's thread may hold while it
        waits, nor ask who may be slow to answer.
        """
        ...

    def connect(self, address: Address, options: Options, timeout: float | None) -> Connection:
        """Connects, waiting up to ``timeout`` seconds for a server to appear."""
        ...
