"""The states of a link."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a link stands; asked of the system when read, never assumed."""

    CONNECTING = "connecting"
    """It waits for its first or its next peer."""
    CONNECTED = "connected"
    """It has a peer that lives."""
    DISCONNECTED = "disconnected"
    """Its peer is gone; messages it sent before may still be received."""
    CLOSED = "closed"
    """It was closed here, for good."""
