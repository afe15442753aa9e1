"""What an event of a channel means to the user. Pure decisions, the same for every transport."""

from __future__ import annotations

from proclink import _core
from proclink._errors import (
    ChannelCorrupt,
    Disconnected,
    MessageTruncated,
    PeerClosed,
    PeerLost,
)

NOT_CONNECTED = -1
"""The status of a call while there is no channel at all."""

_ENDS = {_core.PEER_CLOSED, _core.PEER_LOST, _core.TRUNCATED, _core.CORRUPT}


def is_end(status: int) -> bool:
    """Whether the channel is finished for good."""
    return status in _ENDS


def disconnection(status: int, address: str, violation: str, sent: int = 0) -> Disconnected:
    """The error that the end of a channel is to a link that has no other peer to wait for."""
    if status == _core.PEER_CLOSED:
        return PeerClosed(f"the peer at {address} closed the link", sent)
    if status == _core.PEER_LOST:
        return PeerLost(f"the peer at {address} vanished without closing the link", sent)
    if status == _core.TRUNCATED:
        return MessageTruncated(f"the peer at {address} vanished in the middle of a message", sent)
    return ChannelCorrupt(f"the peer at {address} broke the protocol: {violation}", sent)
