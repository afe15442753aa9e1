"""The native channels. Statuses and events are told in ``transports/_contract.py``."""

import socket
from collections.abc import Callable, Iterable
from typing import Literal, SupportsFloat, SupportsIndex

from typing_extensions import Buffer

TIMED_OUT: int
CLOSED: int
PEER_CLOSED: int
PEER_LOST: int
TRUNCATED: int
CORRUPT: int
NO_RESOURCES: int
TOO_LARGE: int
TOO_SMALL: int
HELD: int
ENTERED: int
TAKEN: int
LEASED: int

SMALLEST_RING: int
LARGEST_RING: int

class Event:
    """What a call came to when no message went through. Always false.

    Attributes:
        status: One of the statuses above.
        left: Seconds left of the call's timeout, ``None`` without one.
        detail: A count or a length, where the status has one.
    """

    def __init__(self, status: int, left: float | None, detail: int = 0) -> None: ...
    def __bool__(self) -> Literal[False]: ...
    @property
    def status(self) -> int: ...
    @property
    def left(self) -> float | None: ...
    @property
    def detail(self) -> int: ...

class Segment:
    """The memory of two rings; the mapping lives as long as this object."""

class ViewLease:
    """The owner of a view's memory."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

class LoanLease:
    """Room for one message in the ring."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def commit(self, length: int) -> int:
        """Sends the first ``length`` bytes; a status, 0 for sent.

        Raises:
            ValueError: ``length`` is more than was loaned.
        """

    def discard(self) -> None:
        """Gives the room back, as soon as no view of it is alive."""

    @property
    def exported(self) -> bool:
        """Whether a view of the room is alive."""

def name_thread(name: str) -> None:
    """Gives the calling thread a name for the system's tools; 15 bytes of it count (Linux)."""

class Origin:
    """Tells an object from the copy of it that a forked child has."""

    def is_here(self) -> bool:
        """Whether this was made in this process. Right in a child from the first moment on."""

class ForkRegion:
    """A context manager: a fork and those inside wait for each other, a second at most.

    No signal handler interrupts either end. A thread may come in again.
    """

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def before_fork(self) -> None:
        """Waits until no other thread is inside, and keeps them out until the fork is over."""

    def after_fork(self) -> None:
        """Lets all in again where there was no fork."""

no_fork: ForkRegion

class SignalBlock:
    """A context manager: no signal but its own faults reaches the calling thread inside.

    Handlers run afterwards. A thread started inside keeps the signals blocked.
    """

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

def call_undisturbed(work: Callable[[], object]) -> None:
    """Calls it with the signals blocked, and again where a handler raises in it all the same.

    A handler does whose signal had come before. What it raised is raised in the end.
    """

def now() -> float:
    """Seconds of the clock that never goes back; tests that freeze time leave it alone."""

class Descriptors:
    """Descriptors on their way to a channel, owned from their first moment; at most eight.

    No signal handler runs, and no thread forks, between a descriptor's coming and its being owned.
    Closed when it is collected.
    """

    def adopt(self, handle: int) -> None:
        """Takes a descriptor over. For where no signal handler runs, inside a ``ForkRegion``."""

    def receive(self, socket: int, size: int) -> bytes:
        """What waits in a Unix socket, at most ``size`` bytes (256), and the descriptors with it.

        Raises:
            BlockingIOError: Nothing waits.
            OSError: The system could not hand the descriptors over: a limit of this process.
        """

    def open_path(self, path: str) -> int:
        """Opens a file as a name only (``O_PATH``).

        Raises:
            OSError: It cannot be opened.
        """

    def close(self) -> None: ...
    @property
    def handles(self) -> list[int]:
        """The descriptors, in the order they came; still owned."""

class _Channel:
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
    def receive_leaser(self) -> int:
        """The identifier of the thread that made the last view."""

    @property
    def send_leaser(self) -> int:
        """The identifier of the thread that made the last loan."""

    @property
    def handle(self) -> int: ...
    @property
    def violation(self) -> str: ...
    @property
    def last_error(self) -> int: ...

class StreamChannel(_Channel):
    """Messages over a connected stream socket, which it takes over.

    Args:
        socket: In blocking mode; it has no descriptor afterwards.
        max_send: The longest message the peer accepts, in bytes.
        max_receive: The longest message this end accepts, in bytes.
        spin: The longest spin before a sleep, in nanoseconds; 0 never spins.
    """

    def __init__(
        self, socket: socket.socket, max_send: int, max_receive: int, spin: int
    ) -> None: ...

class ShmChannel(_Channel):
    """Messages through shared memory.

    Args:
        segment: The memory.
        descriptors: The memory's, which is not needed any more; then the doorbells for data and for
            space of the end that made them, and those of the other end. Empty afterwards.
        control: The connected socket; it has no descriptor afterwards.
        pid: The peer's process, 0 where it is not known.
        creator: Whether this end made the memory.
        max_send: The longest message the peer accepts, in bytes.
        max_receive: The longest message this end accepts, in bytes.
        spin: The longest spin before a sleep, in nanoseconds; 0 never spins.

    Raises:
        OSError: A limit of this process; nothing was taken over.
    """

    def __init__(
        self,
        segment: Segment,
        descriptors: Descriptors,
        control: socket.socket,
        pid: int,
        *,
        creator: bool,
        max_send: int,
        max_receive: int,
        spin: int,
    ) -> None: ...
    def recv_view(self, timeout: float | None) -> Event | memoryview | bytes: ...
    def loan(self, size: int, timeout: float | None) -> Event | LoanLease | None: ...

def close_socket(socket: socket.socket) -> None:
    """Closes a socket; no thread forks between its losing its descriptor and the end of that."""

def create_segment(capacity: int, descriptors: Descriptors) -> Segment:
    """Memory for two rings of ``capacity`` bytes; the descriptor that lets a peer map it is added.

    Raises:
        OSError: The memory cannot be had.
        ValueError: The capacity is not allowed.
    """

def attach_segment(handle: int, capacity: int) -> Segment:
    """Maps memory received from a peer.

    Raises:
        OSError: It is not sealed memory of the right size.
        ValueError: The capacity is not allowed.
    """

def create_doorbell(descriptors: Descriptors) -> int:
    """A new doorbell's descriptor, which is added."""

def is_doorbell(handle: int) -> bool:
    """Whether a descriptor received from a peer is one of a doorbell."""

def as_bytes(message: Buffer) -> bytes:
    """What is sent of an object: ``message`` itself where it is ``bytes``.

    Raises:
        TypeError: It is not bytes-like, or holds pointers.
    """

def count_bytes(message: Buffer) -> int:
    """How many bytes :func:`as_bytes` gives."""

class Room:
    """Where a message is received into, as a context manager."""

    def __len__(self) -> int: ...
    def fill(self, message: bytes) -> None:
        """Writes to its beginning."""

    def __enter__(self) -> Room: ...
    def __exit__(self, *_: object) -> None: ...

def room(target: Buffer) -> Room:
    """The memory of an object.

    Raises:
        BufferError: It is read-only, or not in one piece in C order.
        TypeError: It is not bytes-like, or holds pointers.
    """

def seconds(timeout: SupportsFloat | SupportsIndex | None) -> float | None:
    """A ``timeout`` argument as a float.

    Raises:
        ValueError: It is negative, not a number, or too large for a float.
        TypeError: It is neither ``None`` nor a real number.
    """

class EventCount:
    """Lets threads wait for a change without a lock: take ``count``, look, ``wait``, look again."""

    @property
    def count(self) -> int: ...
    def advance(self) -> None:
        """Ends the waits of those that looked before."""

    def wait(self, seen: int, timeout: float | None) -> bool:
        """Waits until the count is not ``seen`` any more; ``False`` when the timeout passed."""

class Turn:
    """Entering waits for the turn and gives ``None``, or an event that says why there is none."""

    def __enter__(self) -> Event | None: ...
    def __exit__(self, *exception: object) -> None: ...

class DirectionLock:
    """One thread at a time, first come, first served; knows a thread that comes in again."""

    def turn(self, timeout: float | None) -> Turn: ...
    def close(self) -> None:
        """Nobody gets in any more, and who waits is told."""

def set_main_thread(identifier: int) -> None:
    """Tells the thread that Python runs signal handlers in."""

def measure_wake(first_cpu: int, second_cpu: int) -> int:
    """Nanoseconds from ringing the doorbell of a thread that sleeps to that thread running.

    Args:
        first_cpu: Where the ringing thread runs.
        second_cpu: Where the sleeping thread runs.
    """
