"""What an event of a channel means to the user. Pure decisions, the same for every transport."""

from __future__ import annotations

import threading

from proclink import _core
from proclink._errors import (
    ChannelCorrupt,
    Disconnected,
    InUse,
    MessageTruncated,
    PeerClosed,
    PeerLost,
    StillHeld,
    TimedOut,
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
    return ChannelCorrupt(f"the link to the peer at {address} cannot go on: {violation}", sent)


def is_long_lease(status: int, left: float | None) -> bool:
    """Whether a call has waited for a view or a loan so long that it tells, and waits on."""
    return status == _core.LEASED and (left is None or left > 0)


def occupied(
    status: int, address: str, leaser: int, sent: int = 0, *, sending: bool
) -> TimedOut | StillHeld | InUse | None:
    """The error when this process itself was in the way of a call, ``None`` when it was not.

    Args:
        status: Of the event.
        address: Of the link.
        leaser: The identifier of the thread that made the last loan (or view).
        sent: For ``send_many``, how many messages were sent before.
        sending: Whether the call sends or receives.
    """
    doing, lease = ("sending", "loan") if sending else ("receiving", "view")
    if status == _core.HELD:
        give_back = "send or discard" if sending else "release"
        return StillHeld(f"this thread holds a {lease} of the link; {give_back} it first")
    if status == _core.ENTERED:
        return entered(address, sending=sending)
    if status == _core.TAKEN:
        return TimedOut(f"another thread of this process was {doing} on {address}", sent)
    if status == _core.LEASED:
        return TimedOut(f"{lease_of(leaser, address, sending=sending)} was in the way", sent)
    return None


def entered(address: str, *, sending: bool) -> InUse:
    """The error of a call that interrupted one of its own thread's."""
    doing = "sending" if sending else "receiving"
    return InUse(
        f"this thread is {doing} on {address} already, in a call that this one interrupted (from a "
        "signal handler, a finalizer or a logging handler); leave a note there and go on when the "
        "outer call has ended, or close the link"
    )


def lease_of(leaser: int, address: str, *, sending: bool) -> str:
    """What is in the way of a call that waits for a view or a loan."""
    lease, ended = ("loan", "sent or discarded") if sending else ("view", "released")
    maker = next((t.name for t in threading.enumerate() if t.ident == leaser), None)
    whose = f"thread {maker!r}" if maker else "a thread that has ended"
    return f"a {lease} of {address} that {whose} made and that is not {ended}"
