"""The introduction of two ends to each other, without any I/O.

Three messages of 64 bytes, little-endian::

    connecting end                     bound end
    HELLO  ─────────────────────────▶
           ◀─────────────────────────  WELCOME (or the reason of a refusal)
    READY  ─────────────────────────▶

    offset  size  field
         0     8  magic, b"proclink"
         8     2  version of the protocol
        10     1  kind: 1 HELLO, 2 WELCOME, 3 READY
        11     1  transport: 1 pipe, 2 shm, 3 tcp
        12     4  answer (WELCOME only): an ``Answer``
        16     8  the longest message this end accepts, in bytes
        24     8  capacity of a ring in bytes (WELCOME on shm), else 0
        32    32  the CPUs this end may use, bit n of byte m for CPU 8 m + n (modulo 256)

The sizes are fixed, so whoever has not introduced himself reaches nothing but ``struct.unpack``.
On shm the WELCOME carries five descriptors: the memory, then the doorbells (bound end's data,
bound end's space, connecting end's data, connecting end's space).
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from proclink._errors import (
    Busy,
    ConnectionFailed,
    HandshakeFailed,
    PeerRefused,
    VersionMismatch,
)

VERSION = 1
MAGIC = b"proclink"
_FORMAT = struct.Struct("<8sHBBIQQ32s")
SIZE = _FORMAT.size
DESCRIPTORS = 5


class Kind(enum.IntEnum):
    """Which of the three messages."""

    HELLO = 1
    WELCOME = 2
    READY = 3


class Answer(enum.IntEnum):
    """What the bound end says to a HELLO."""

    WELCOME = 0
    OTHER_VERSION = 1
    OTHER_TRANSPORT = 2
    BUSY = 3
    NOT_ALLOWED = 4
    NO_MEMORY = 5


class Introduction(NamedTuple):
    """One handshake message."""

    kind: Kind
    transport: int
    max_message: int = 0
    ring_size: int = 0
    answer: Answer = Answer.WELCOME
    version: int = VERSION
    cpus: int = 0


def pack(introduction: Introduction) -> bytes:
    """The 64 bytes of a message."""
    return _FORMAT.pack(
        MAGIC,
        introduction.version,
        introduction.kind,
        introduction.transport,
        introduction.answer,
        introduction.max_message,
        introduction.ring_size,
        introduction.cpus.to_bytes(32, "little"),
    )


def looks_right(start: bytes) -> bool:
    """Whether the first bytes of a message may be those of a proclink end."""
    return start[: len(MAGIC)] == MAGIC[: len(start)]


def unpack(data: bytes, expected: Kind) -> Introduction:
    """Reads a message.

    Raises:
        HandshakeFailed: It is not a proclink message, or not the expected one.
        VersionMismatch: The other end speaks another version.
    """
    magic, version, kind, transport, answer, max_message, ring_size, cpus = _FORMAT.unpack(data)
    if magic != MAGIC:
        raise HandshakeFailed("the program at the other end does not speak proclink")
    if version != VERSION:
        raise VersionMismatch(VERSION, version)
    if kind != expected:
        raise HandshakeFailed("the other end sent its introduction out of turn")
    try:
        answer = Answer(answer)
    except ValueError:
        raise HandshakeFailed("the other end gave an unknown answer") from None
    return Introduction(
        Kind(kind),
        transport,
        max_message,
        ring_size,
        answer,
        version,
        int.from_bytes(cpus, "little"),
    )


def refusal(welcome: Introduction, address: str) -> ConnectionFailed | None:
    """The error that the bound end's answer means for the connecting end, if it refused."""
    match welcome.answer:
        case Answer.WELCOME:
            return None
        case Answer.BUSY:
            return Busy(f"{address} is a one-to-one end and has its peer already")
        case Answer.NOT_ALLOWED:
            return PeerRefused(f"{address} does not allow this user")
        case Answer.OTHER_TRANSPORT:
            return HandshakeFailed(f"{address} serves another transport")
        case Answer.NO_MEMORY:
            return ConnectionFailed(f"{address} has no shared memory left for another link")
        case Answer.OTHER_VERSION:
            return VersionMismatch(VERSION, welcome.version)
