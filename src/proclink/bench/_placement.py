"""On which CPUs the two processes run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Where the two processes of a measurement run.

    Attributes:
        name: ``"own"`` (each on its own core), ``"shared"`` (both on one) or ``"unpinned"``.
        client: The client's CPU, ``None`` for any.
        server: The server's CPU, ``None`` for any.
    """

    name: str
    client: int | None
    server: int | None


UNPINNED = Placement("unpinned", None, None)


def pinned(client: int, server: int) -> Placement:
    """The placement on two given CPUs, which may be the same.

    Raises:
        ValueError: This process may not use them.
    """
    allowed = usable_cpus()
    if not allowed:
        raise ValueError("this system does not let a process choose its cpus")
    for cpu in (client, server):
        if cpu not in allowed:
            usable = ", ".join(map(str, allowed))
            raise ValueError(f"cpu {cpu} cannot be used here; usable are {usable}")
    return Placement("shared" if client == server else "own", client, server)


def automatic_placements() -> list[Placement]:
    """Own cores and then one shared core, as far as this machine has them."""
    allowed = usable_cpus()
    if not allowed:
        return [UNPINNED]
    first = allowed[0]
    others = [cpu for cpu in allowed if cpu != first]
    # Two threads of one core share its caches and its units: they are not own cores.
    other_cores = [cpu for cpu in others if cpu not in threads_of_core(first)]
    placements = [pinned(first, first)]
    if others:
        placements.insert(0, pinned(first, (other_cores or others)[0]))
    return placements


def usable_cpus() -> list[int]:
    """The CPUs this process may choose from; none where it cannot choose."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []


def threads_of_core(cpu: int) -> set[int]:
    """The CPUs that are hardware threads of the same core as ``cpu``."""
    listing = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return cpus_of_list(listing.read_text())
    except (OSError, ValueError):
        return {cpu}


def cpus_of_list(text: str) -> set[int]:
    """Reads the kernel's form of a set of CPUs, such as ``0-2,8``."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
