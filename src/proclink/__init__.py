"""proclink joins two processes with one two-way, message-oriented link.

The address chooses the transport: ``pipe://``, ``shm://``, ``tcp://`` or ``memory://``; everything
above it stays the same.

Example:
    >>> import proclink
    >>> with proclink.connect("shm://quotes") as link:
    ...     link.send(b"ping")
    ...     reply = link.recv(timeout=1.0)
"""

from __future__ import annotations

import logging

from proclink._errors import (
    AddressBlocked,
    AddressError,
    AddressInUse,
    BufferTooSmall,
    Busy,
    ChannelCorrupt,
    ConnectionFailed,
    Disconnected,
    ForkedLink,
    HandshakeFailed,
    InUse,
    LinkClosed,
    MessageTooLarge,
    MessageTruncated,
    NoServer,
    OutOfResources,
    PeerClosed,
    PeerLost,
    PeerRefused,
    ProclinkError,
    RuntimeDirectoryError,
    SharedMemoryFull,
    StillHeld,
    TimedOut,
    VersionMismatch,
)
from proclink._link import Link
from proclink._listener import Listener
from proclink._loan import Loan
from proclink._peer import Peer
from proclink._state import State
from proclink.sync import bind, connect, listen

__all__ = [
    "AddressBlocked",
    "AddressError",
    "AddressInUse",
    "BufferTooSmall",
    "Busy",
    "ChannelCorrupt",
    "ConnectionFailed",
    "Disconnected",
    "ForkedLink",
    "HandshakeFailed",
    "InUse",
    "Link",
    "LinkClosed",
    "Listener",
    "Loan",
    "MessageTooLarge",
    "MessageTruncated",
    "NoServer",
    "OutOfResources",
    "Peer",
    "PeerClosed",
    "PeerLost",
    "PeerRefused",
    "ProclinkError",
    "RuntimeDirectoryError",
    "SharedMemoryFull",
    "State",
    "StillHeld",
    "TimedOut",
    "VersionMismatch",
    "bind",
    "connect",
    "listen",
]

logging.getLogger("proclink").addHandler(logging.NullHandler())

__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not above: it is slow to import, and few ask.
    import importlib.metadata

    return importlib.metadata.version("proclink")
