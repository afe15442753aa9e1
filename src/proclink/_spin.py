"""How long a wait may spin in this process."""

from __future__ import annotations

import functools
import operator
import os
from pathlib import Path

from proclink import _core, _fork
from proclink._options import Spin

LONGEST_AUTOMATIC_SPIN = 100_000
"""Nanoseconds; two wakes on a slow virtual machine."""


def spin_nanoseconds(spin: Spin, their_cpus: int) -> int:
    """The spin budget of a new channel, in nanoseconds; 0 where spinning cannot help.

    It cannot where both ends may run on one CPU only, and the same one: the peer would wait for the
    end that waits for it. Nor where a quota would be burnt by it.

    Args:
        spin: The user's setting.
        their_cpus: The peer's :func:`cpu_mask`.
    """
    if spin == 0 or (cpu_mask() | their_cpus).bit_count() < 2 or own_quota() < 2:
        return 0
    if spin == "auto":
        # Long enough to outlast the wake of a peer that sleeps: two ends that both slept find back.
        return min(2 * _wake_nanoseconds(), LONGEST_AUTOMATIC_SPIN)
    return int(float(spin) * 1000)


def cpu_mask() -> int:
    """The CPUs this process may use now, bit n for CPU n modulo 256."""
    return functools.reduce(operator.or_, (1 << (cpu % 256) for cpu in _cpus()))


def _cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        # Of the process, whichever thread asks.
        return os.sched_getaffinity(os.getpid())
    return set(range(os.cpu_count() or 1))


def own_quota() -> float:
    """The CPUs this process's control group may use; infinite without a quota."""
    return quota_cpus(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


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
        return float("inf") if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        return float("inf")


def _quota_v1(folder: Path) -> float:
    try:
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if allowed <= 0 else allowed / period


_measured_wake: int | None = None


def _wake_nanoseconds() -> int:
    global _measured_wake
    if _measured_wake is None:
        cpus = sorted(_cpus())
        if len(cpus) < 2:
            # Not to be measured from one CPU, and not remembered: there may be more later.
            return LONGEST_AUTOMATIC_SPIN
        with _fork.no_fork:  # its doorbells are nobody's
            _measured_wake = _core.measure_wake(cpus[0], cpus[1])
    return _measured_wake
