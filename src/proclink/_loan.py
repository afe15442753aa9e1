"""A message written where it will be sent from."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from proclink import _core
from proclink._errors import LinkClosed
from proclink._events import disconnection
from proclink._unique import Unique

if TYPE_CHECKING:
    from proclink._link import Link


class Loan(Unique):
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

    _instead = "copy its room, or send it"

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
        self._release_room(lease)
        if isinstance(lease, bytearray):
            try:
                self._link.send(memoryview(lease)[:size])
            except BaseException:
                self.room = memoryview(lease)
                raise
            self._lease = None
            return
        self._lease = None
        status = lease.commit(size)
        if status == _core.CLOSED:
            self._link._check_usable(status)
            raise LinkClosed(f"the channel of {self._link.address} is closed")
        if status != 0:
            raise disconnection(status, self._link.address, "")

    def _release_room(self, lease: _core.LoanLease | bytearray) -> None:
        """Releases the room, or raises and keeps it when something made from it is alive."""
        self.room.release()
        if isinstance(lease, bytearray):
            try:
                lease.append(0)  # which a bytearray refuses while it is looked at
                del lease[-1]
            except BufferError:
                alive = True
            else:
                alive = False
        else:
            alive = lease.exported
        if alive:
            self.room = memoryview(lease)
            raise BufferError(
                "an array or memoryview made from the loan is still alive; drop it before the "
                "loan is sent"
            )

    def discard(self) -> None:
        """Gives the room back without sending. Again does nothing.

        While an array made from it is alive, the room is given back when that is gone.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if not isinstance(lease, bytearray):
            lease.discard()
        self.room.release()

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
