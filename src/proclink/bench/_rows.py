"""From raw times to the numbers shown."""

from __future__ import annotations

import array
import dataclasses
import math
from collections.abc import Sequence

from proclink._options import Spin


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What was measured for one transport, size, mode and placement.

    In mode ``pingpong`` a time is that of one round trip. In the stream modes it is that of one
    message, averaged over one run: the time from the run's first ``send`` to the receiver's
    confirmation of its last message, divided by the messages of the run.

    Attributes:
        transport: ``"pipe"``, ``"shm"`` or ``"tcp"``.
        size: The messages' length in bytes.
        mode: ``"pingpong"``, ``"stream"`` or ``"stream_many"``.
        placement: ``"own"``, ``"shared"`` or ``"unpinned"``.
        spin: The setting of both links.
        n: The messages the client sent; in ``pingpong``, the round trips.
        p50_us: The median, in microseconds.
        p99_us: The 99th percentile.
        p999_us: The 99.9th percentile.
        min_us: The shortest.
        msgs_per_s: The messages the client sent a second.
        mb_per_s: The millions of bytes the client sent a second.
    """

    transport: str
    size: int
    mode: str
    placement: str
    spin: Spin
    n: int
    p50_us: float
    p99_us: float
    p999_us: float
    min_us: float
    msgs_per_s: float
    mb_per_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Samples:
    """The times of one round.

    Attributes:
        times: Nanoseconds, one for each round trip or run.
        messages: How many messages the client sent in each of these times.
    """

    times: array.array[int]
    messages: int


def row_of(
    rounds: Sequence[Samples],
    *,
    transport: str,
    size: int,
    mode: str,
    placement: str,
    spin: Spin,
) -> Row:
    """Merges the rounds of one measurement."""
    times = sorted(time / taken.messages for taken in rounds for time in taken.times)
    sent = sum(len(taken.times) * taken.messages for taken in rounds)
    seconds = sum(sum(taken.times) for taken in rounds) / 1e9
    rate = sent / seconds
    return Row(
        transport=transport,
        size=size,
        mode=mode,
        placement=placement,
        spin=spin,
        n=sent,
        p50_us=round(percentile(times, 0.5) / 1e3, 3),
        p99_us=round(percentile(times, 0.99) / 1e3, 3),
        p999_us=round(percentile(times, 0.999) / 1e3, 3),
        min_us=round(times[0] / 1e3, 3),
        msgs_per_s=round(rate, 1),
        mb_per_s=round(rate * size / 1e6, 3),
    )


def percentile(ascending: Sequence[float], part: float) -> float:
    """The smallest value that at least ``part`` of the values do not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(part * len(ascending)) - 1)]
