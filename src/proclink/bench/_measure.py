"""The order of a whole measurement."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from proclink._options import MEBIBYTE, Options, Spin
from proclink.bench._modes import MODES, Mode
from proclink.bench._pair import TRANSPORTS, Pair
from proclink.bench._placement import Placement, automatic_placements
from proclink.bench._rows import Row, Samples, row_of

LARGEST_SIZE = 1024 * MEBIBYTE
_MOST_ROUNDS = 5
_SHORTEST_ROUND = 0.2
"""Seconds; starting two processes for less than this would be most of the work."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a measurement is.

    Attributes:
        done: Parts done.
        total: Parts in all.
        now: What is measured next, in words; empty at the end.
    """

    done: int
    total: int
    now: str


def measure(
    transports: Sequence[str] = TRANSPORTS,
    sizes: Sequence[int] = (16, 256, 4096, 16384),
    *,
    modes: Sequence[Mode] = ("pingpong",),
    placements: Sequence[Placement] | None = None,
    spin: Spin = "auto",
    seconds: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> list[Row]:
    """Measures every combination of transport, size, mode and placement.

    Server and client are processes of their own, started together for each round of a transport.
    The time of a combination is spread over rounds, and each round goes through all transports in
    another order, so that whatever else the machine does in between hits all alike.

    Args:
        transports: Some of ``TRANSPORTS``.
        sizes: The messages' lengths in bytes.
        modes: Some of ``MODES``.
        placements: Where the processes run; :func:`automatic_placements` by default.
        spin: Of both links; see :func:`proclink.bind`.
        seconds: For each combination, without its warm-up.
        progress: Called before each part and at the end, while nothing is measured.

    Returns:
        A row for each combination, ordered by mode, placement, size and transport.

    Raises:
        MeasurementFailed: A process failed, died or did not answer.
        ValueError: An argument makes no sense.
    """
    _check(transports, sizes, modes, spin, seconds)
    if placements is None:
        placements = automatic_placements()
    rounds = max(1, min(_MOST_ROUNDS, int(seconds / _SHORTEST_ROUND)))
    total = rounds * len(placements) * len(transports) * len(modes) * len(sizes)
    samples: dict[tuple[Mode, Placement, int, str], list[Samples]]
    samples = collections.defaultdict(list)
    done = 0

    def report(now: str) -> None:
        if progress is not None:
            progress(Progress(done, total, now))

    for turn, placement in itertools.product(range(rounds), placements):
        first = turn % max(1, len(transports))
        for transport in (*transports[first:], *transports[:first]):
            with Pair(transport, placement, spin, max(sizes, default=0)) as pair:
                for mode, size in itertools.product(modes, sizes):
                    report(f"{transport} {mode} {size} B, {placement.name}")
                    taken = pair.measure(mode, size, seconds / rounds)
                    samples[mode, placement, size, transport].append(taken)
                    done += 1
    report("")
    return [
        row_of(
            samples[mode, placement, size, transport],
            transport=transport,
            size=size,
            mode=mode,
            placement=placement.name,
            spin=spin,
        )
        for mode, placement, size, transport in itertools.product(
            modes, placements, sizes, transports
        )
    ]


def _check(
    transports: Sequence[str],
    sizes: Sequence[int],
    modes: Sequence[Mode],
    spin: Spin,
    seconds: float,
) -> None:
    for transport in transports:
        if transport == "memory":
            raise ValueError("memory:// lives inside one process, and this measures two")
        if transport not in TRANSPORTS:
            raise ValueError(f"there is no transport {transport!r}; {', '.join(TRANSPORTS)} are")
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
    if any(not 0 <= size <= LARGEST_SIZE for size in sizes):
        raise ValueError(f"a size is a number of bytes from 0 to {LARGEST_SIZE}")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError("seconds must be a positive number")
    Options(spin=spin)
