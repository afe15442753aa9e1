"""Every error proclink raises.

::

    ProclinkError
    ├── AddressError            (ValueError)              the URL makes no sense
    ├── AddressInUse            (OSError)                 a live owner has the name or port
    ├── AddressBlocked          (FileExistsError)         a file that is not ours is in the way
    ├── RuntimeDirectoryError   (PermissionError)         no safe place for names
    ├── TimedOut                (TimeoutError)            a call's ``timeout`` passed
    │   └── NoServer            (ConnectionRefusedError)  nobody answered at the address
    ├── ConnectionFailed        (ConnectionError)         no link came about
    │   ├── HandshakeFailed                               the other program speaks something else
    │   ├── VersionMismatch                               it speaks another version of proclink
    │   ├── Busy                (ConnectionRefusedError)  the one-to-one end has its peer already
    │   └── PeerRefused         (PermissionError)         the other user is not allowed
    ├── Disconnected            (ConnectionError)         the link had a peer and has none now
    │   ├── PeerClosed                                    it said goodbye
    │   ├── PeerLost            (ConnectionResetError)    it vanished
    │   │   └── MessageTruncated                          in the middle of a message
    │   └── ChannelCorrupt                                the channel cannot go on, see its text
    ├── LinkClosed              (ConnectionError)         this end was closed
    ├── MessageTooLarge         (ValueError)              longer than the peer accepts
    ├── BufferTooSmall          (ValueError)              the message does not fit the buffer
    ├── SharedMemoryFull        (MemoryError)             no room for the rings
    ├── OutOfResources          (OSError)                 the system has no memory or buffers
    ├── StillHeld               (RuntimeError)            a view or a loan has not been given back
    ├── InUse                   (RuntimeError)            the calling thread is inside already
    └── ForkedLink              (RuntimeError)            used in a forked child

The shape follows httpx: one tree, and every low-level error mapped to the most specific class.
"""

from __future__ import annotations

import errno
import os
from typing import Any


class ProclinkError(Exception):
    """The base of every error of proclink."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles by its attributes: an initializer takes other things than it shows."""
        return (_restore, (type(self), self.args, vars(self)))


def _restore(
    kind: type[ProclinkError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> ProclinkError:
    # Past the initializers of this module, with that of the built-in.
    error: ProclinkError
    if issubclass(kind, OSError):
        error = OSError.__new__(kind, *arguments)
        OSError.__init__(error, *arguments)
    else:
        error = BaseException.__new__(kind, *arguments)
    vars(error).update(attributes)
    return error


class AddressError(ProclinkError, ValueError):
    """The URL has an unknown scheme, a bad name, a bad port or an unknown option."""


class AddressInUse(ProclinkError, OSError):
    """Another live process owns the address.

    Attributes:
        pid: The owner's process id, or ``None`` where it cannot be known.
    """

    def __init__(self, address: str, pid: int | None = None) -> None:
        owner = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            errno.EADDRINUSE, f"{address} is in use by {owner}; end it or choose another"
        )
        self.pid = pid


class AddressBlocked(ProclinkError, FileExistsError):
    """A file that proclink did not make stands where the address needs one."""


class RuntimeDirectoryError(ProclinkError, PermissionError):
    """The directory for names is not a private directory of this user."""


class TimedOut(ProclinkError, TimeoutError):
    """The ``timeout`` of a call passed. Nothing of a message being sent will be delivered.

    Attributes:
        sent: For ``send_many``, how many messages were sent before.
    """

    def __init__(self, message: str, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class NoServer(TimedOut, ConnectionRefusedError):
    """No server answered at the address within the timeout."""


class ConnectionFailed(ProclinkError, ConnectionError):
    """No link came about."""


class HandshakeFailed(ConnectionFailed):
    """The program at the other end does not speak proclink, or not correctly."""


class VersionMismatch(ConnectionFailed):
    """The other end speaks another version of the protocol.

    Attributes:
        ours: The version of this end.
        theirs: The version of the other end.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(
            f"this end speaks version {ours} of the proclink protocol, the other end version "
            f"{theirs}; install the same proclink on both"
        )
        self.ours = ours
        self.theirs = theirs


class Busy(ConnectionFailed, ConnectionRefusedError):
    """The one-to-one end at the address has its peer already."""


class PeerRefused(ConnectionFailed, PermissionError):
    """The other end runs as a user that is not allowed."""


class Disconnected(ProclinkError, ConnectionError):
    """The link had a peer and has none now.

    Attributes:
        sent: For ``send_many``, how many messages were sent before.
    """

    def __init__(self, message: str, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class PeerClosed(Disconnected):
    """The peer closed its end; everything it had sent was received."""


class PeerLost(Disconnected, ConnectionResetError):
    """The peer vanished without closing its end: killed, crashed or cut off."""


class MessageTruncated(PeerLost):
    """The peer vanished in the middle of a message; the part that came was dropped."""


class ChannelCorrupt(Disconnected):
    """The channel cannot go on, and was closed: the peer broke the protocol.

    Or this end had no memory to keep the part of a message that had come when a call timed out.
    """


class LinkClosed(ProclinkError, ConnectionError):
    """This end was closed.

    Attributes:
        sent: For ``send_many``, how many messages were sent before.
    """

    def __init__(self, message: str, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class MessageTooLarge(ProclinkError, ValueError):
    """The message is longer than the peer accepts. The link is unharmed.

    Attributes:
        size: The message's length in bytes.
        limit: The longest message the peer accepts, in bytes.
        sent: For ``send_many``, how many messages were sent before.
    """

    def __init__(self, size: int, limit: int, sent: int = 0) -> None:
        super().__init__(
            f"a message of {size} bytes is longer than the {limit} bytes that both ends accept; "
            "raise max_message= on both"
        )
        self.size = size
        self.limit = limit
        self.sent = sent


class BufferTooSmall(ProclinkError, ValueError):
    """The next message does not fit the buffer; it stays there to be received.

    Attributes:
        needed: The message's length in bytes.
    """

    def __init__(self, needed: int, size: int) -> None:
        super().__init__(f"the next message has {needed} bytes, the buffer {size}")
        self.needed = needed


class SharedMemoryFull(ProclinkError, MemoryError):
    """There is no room for the link's shared memory.

    Attributes:
        need: The bytes the link needs.
        free: The bytes free, or ``None`` where that cannot be known.
    """

    def __init__(self, need: int, free: int | None) -> None:
        left = "a limit of this process is lower" if free is None else f"{free} are free"
        super().__init__(
            f"the link needs {need} bytes of shared memory and {left}; "
            "free memory, raise the limit, or take a smaller ring_size="
        )
        self.need = need
        self.free = free


class OutOfResources(ProclinkError, OSError):
    """The system had no memory or no buffers for a call, whose ``errno`` tells which.

    The link is unharmed: nothing of a message being sent will arrive, nothing that came is lost.

    Attributes:
        sent: For ``send_many``, how many messages were sent before.
    """

    def __init__(self, number: int, address: str, sent: int = 0) -> None:
        super().__init__(
            number, f"{os.strerror(number)}, in a call of the link {address}; try again later"
        )
        self.sent = sent


class StillHeld(ProclinkError, RuntimeError):
    """This thread still holds a view (or a loan) of the direction it wants to use."""


class InUse(ProclinkError, RuntimeError):
    """The calling thread is inside the same part of the link already, and cannot wait for itself.

    A signal handler, a finalizer or a logging handler ran in the middle of a call and called again.
    It may close the link, which ends the outer call; or leave a note for the code that it
    interrupted, which then sends or receives.
    """


class ForkedLink(ProclinkError, RuntimeError):
    """The link was made before a fork and belongs to the parent process."""
