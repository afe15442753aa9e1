"""What a user may set on a link, checked before anything is opened."""

from __future__ import annotations

import logging
import math
from typing import Literal, TypeAlias

from proclink import _core

Spin: TypeAlias = Literal["auto"] | float

MEBIBYTE = 1024 * 1024
LOGGER = logging.getLogger("proclink")
"""Asked for once: getLogger() takes a lock, which a handler that raises there leaves locked."""
LARGEST_MESSAGE = 1 << 40


class Options:
    """The settings of a link or a listener.

    Attributes:
        max_message: The longest message this end accepts, in bytes. What may be sent is the lower
            of both ends' settings.
        ring_size: Bytes of shared memory a direction (``shm``), a power of two from 64 KiB to
            4 GiB. The bound side decides; the connecting side adopts it.
        spin: How long a wait looks before it sleeps: ``"auto"`` (calibrated, at most 100 µs, and
            nothing while recent waits were long), 0 (never) or microseconds. Never on one CPU.
        handshake_timeout: Seconds a newcomer has to introduce itself.
        logger: Where to log.
        max_ring_size: The largest ``ring_size`` the connecting side adopts (``shm``), in bytes.
    """

    # Not a dataclass, here and elsewhere in the library: with what that module imports and compiles
    # `import proclink` takes a quarter longer.
    __slots__ = (
        "handshake_timeout",
        "logger",
        "max_message",
        "max_ring_size",
        "ring_size",
        "spin",
    )

    def __init__(
        self,
        max_message: int = 64 * MEBIBYTE,
        ring_size: int = MEBIBYTE,
        spin: Spin = "auto",
        handshake_timeout: float = 5.0,
        logger: logging.Logger | None = None,
        max_ring_size: int = 256 * MEBIBYTE,
    ) -> None:
        _check_integer("max_message", max_message, 0, LARGEST_MESSAGE)
        _check_integer("ring_size", ring_size, _core.SMALLEST_RING, _core.LARGEST_RING)
        _check_integer("max_ring_size", max_ring_size, _core.SMALLEST_RING, _core.LARGEST_RING)
        if ring_size & (ring_size - 1):
            raise ValueError(f"ring_size must be a power of two, not {ring_size}")
        if not valid_spin(spin):
            raise ValueError(f"spin must be 'auto', 0 or up to 1,000,000 µs, not {spin!r}")
        if not (handshake_timeout > 0 and math.isfinite(handshake_timeout)):
            raise ValueError("handshake_timeout must be a positive number of seconds")
        self.max_message = max_message
        self.ring_size = ring_size
        self.spin: Spin = spin
        self.handshake_timeout = handshake_timeout
        self.logger = logger or LOGGER
        self.max_ring_size = max_ring_size


def valid_spin(spin: object) -> bool:
    """Whether ``spin`` is ``"auto"`` or 0 to 1,000,000 µs."""
    if isinstance(spin, (int, float)):
        return 0 <= spin <= 1_000_000
    return spin == "auto"


def _check_integer(name: str, value: object, smallest: int, largest: int) -> None:
    if not isinstance(value, int) or not smallest <= value <= largest:
        raise ValueError(f"{name} must be an integer from {smallest} to {largest}, not {value!r}")
