"""A message written where it will be sent from."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from proclink import _core
from proclink._errors import LinkClosed
from proclink._events import disconnection

if TYPE_CHECKING:
    from proclink._link import Link


class Loan:
    """Room for one message, from :meth:`proclink.Link.loan`.

    As a context manager it gives the room and sends the message at the end of the block, or throws
    it away when the block raises. Arrays made from the room have to be gone by then.

    Attributes:
        room: The writable memory, a ``memoryview`` of bytes; its content is undefined at first.

    Example:
        >>> with link.loan(samples.nbytes) as room:
        ...     numpy.copyto(numpy.frombuffer(room, samples.dtype), samples)
    """

    __slots__ = ("_lease", "_link", "room")

    def __init__(self, link: Link, lease: _core.LoanLease | bytearray) -> None:
        self._link = link
        self._lease: _core.LoanLease | bytearray | None = lease
        self.room = memoryview(lease)

    def send(self, size: int | None = None) -> None:
        """Sends the first ``size`` bytes of the room, by default all.

        Raises:
            BufferError: An array or view made from the room is still alive; the loan stays.
            ValueError: ``size`` is more than was loaned, or the loan was sent or discarded.
            PeerClosed: The peer is gone, also on a bound link: the room was shared with it.
            PeerLost: Likewise.
            LinkClosed: This end was closed meanwhile.
        """
        lease = self._lease
        if lease is None:
            raise ValueError("the loan was sent or discarded already")
        if size is None:
            size = len(self.room)
        elif not 0 <= size <= len(self.room):
            raise ValueError(f"cannot send {size} bytes of a loan of {len(self.room)}")
        if isinstance(lease, bytearray):
            self._link.send(self.room[:size])
            self.discard()
            return
        self.room.release()
        status = lease.commit(size)
        self._lease = None
        if status == _core.CLOSED:
            self._link._check_usable(status)
            raise LinkClosed(f"the channel of {self._link.address} is closed")
        if status != 0:
            raise disconnection(status, self._link.address, "")

    def discard(self) -> None:
        """Gives the room back without sending. Again does nothing."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            self.room.release()
        finally:
            # With an array of it alive, the room is given back when that is gone.
            if not isinstance(lease, bytearray):
                lease.discard()

    def __enter__(self) -> memoryview:
        return self.room

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception_type is not None:
            self.discard()
        elif self._lease is not None:
            self.send()
