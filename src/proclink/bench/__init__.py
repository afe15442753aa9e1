"""Measures the links between two processes of this machine.

Library code: no terminal, no table. ``proclink bench`` shows what :func:`measure` gives.

Example:
    >>> from proclink import bench
    >>> for row in bench.measure(["shm"], [16, 1024], seconds=0.5):
    ...     print(row.size, row.p50_us)
"""

from __future__ import annotations

from proclink.bench._machine import Machine, describe_machine
from proclink.bench._measure import LARGEST_SIZE, Progress, measure
from proclink.bench._modes import MODES, Mode
from proclink.bench._pair import TRANSPORTS, MeasurementFailed
from proclink.bench._placement import UNPINNED, Placement, automatic_placements, pinned
from proclink.bench._rows import Row

__all__ = [
    "LARGEST_SIZE",
    "MODES",
    "TRANSPORTS",
    "UNPINNED",
    "Machine",
    "MeasurementFailed",
    "Mode",
    "Placement",
    "Progress",
    "Row",
    "automatic_placements",
    "describe_machine",
    "measure",
    "pinned",
]
