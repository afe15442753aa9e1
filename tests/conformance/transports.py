"""Every transport the conformance suite runs over. To add one, add a line."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class TransportUnderTest:
    """One way to link.

    Attributes:
        name: What the test report calls it.
        url: Makes a fresh URL; given a private directory.
        in_place: Views and loans are the memory of the ring.
        counted: Room is counted in bytes, so that a message received makes room for another one.
    """

    name: str
    url: Callable[[Path], str]
    in_place: bool = False
    counted: bool = False


def unique(prefix: str = "name") -> str:
    """A name nobody else has."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


TRANSPORTS = [
    TransportUnderTest("memory", lambda _: f"memory://{unique()}", counted=True),
    TransportUnderTest("pipe", lambda _: f"pipe://{unique()}"),
    TransportUnderTest("shm", lambda _: f"shm://{unique()}", in_place=True, counted=True),
    TransportUnderTest("tcp", lambda _: "tcp://127.0.0.1:0"),
    TransportUnderTest("pipe-path", lambda place: f"pipe://{place}/{unique()}.socket"),
]
