"""How long a wait may spin in this process."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from proclink import _core
from proclink._options import Spin

LONGEST_AUTOMATIC_SPIN = 50_000
"""Nanoseconds."""


def spin_nanoseconds(spin: Spin) -> int:
    """The spin budget of a new channel, in nanoseconds; 0 where spinning cannot help."""
    if spin == 0 or usable_cpus() < 2:
        return 0
    if spin == "auto":
        return min(_wake_nanoseconds(), LONGEST_AUTOMATIC_SPIN)
    return int(float(spin) * 1000)


def usable_cpus() -> float:
    """The CPUs this process may use now: by affinity, and by its control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return min(count, quota_cpus(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))


def quota_cpus(membership: Path, root: Path) -> float:
    """The CPU quota of the control group (cgroups(7)) and of its parents; infinite without one.

    Args:
        membership: The file that names this process's groups.
        root: Where the group file systems are mounted.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return float("inf")
    quota = float("inf")
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.strip("/")
        if controllers == "":
            folder = root / relative
            while True:
                quota = min(quota, _quota_v2(folder / "cpu.max"))
                if folder == root:
                    break
                folder = folder.parent
        elif "cpu" in controllers.split(","):
            quota = min(quota, _quota_v1(root / "cpu" / relative))
    return quota


def _quota_v2(file: Path) -> float:
    try:
        allowed, period = file.read_text().split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if allowed == "max" else int(allowed) / int(period)


def _quota_v1(folder: Path) -> float:
    try:
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if allowed <= 0 else allowed / period


@functools.cache
def _wake_nanoseconds() -> int:
    return _core.measure_wake()
