"""Parameters that several commands have, and their checks."""

from __future__ import annotations

import math
import threading
from typing import Annotated, TypeAlias

import typer


def check_url(url: str) -> str:
    """Refuses what cannot join two commands."""
    if url.startswith("memory://"):
        raise typer.BadParameter(
            "memory:// lives inside one process; take pipe://, shm:// or tcp://"
        )
    return url


def check_seconds(seconds: float | None) -> float | None:
    """Refuses what is no time to wait."""
    if seconds is not None and not (
        math.isfinite(seconds) and 0 <= seconds <= threading.TIMEOUT_MAX
    ):
        raise typer.BadParameter(f"{seconds} is not a number of seconds from 0 on")
    return seconds


Url: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        callback=check_url,
        help="pipe://NAME, pipe:///PATH, shm://NAME or tcp://HOST:PORT.",
    ),
]

Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        callback=check_seconds,
        help="Seconds to wait, each time; without it 10 to connect, and no limit after that.",
    ),
]
