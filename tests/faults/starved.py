"""Processes whose Python has no memory at one place. Run like ``faults.roles``."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from faults.roles import LONG, run, say
from proclink import _core

_Result = TypeVar("_Result")

_testcapi: Any = importlib.import_module("_testcapi")


def _ends() -> tuple[_core.StreamChannel, _core.StreamChannel]:
    pair = socket.socketpair()
    limit = 1 << 20
    one, other = (_core.StreamChannel(end, limit, limit, 0) for end in pair)
    return one, other


def _got(outcome: _Result | _core.Event) -> _Result:
    assert not isinstance(outcome, _core.Event), outcome.status
    return outcome


def _without_memory(place: int, call: Callable[..., object], *arguments: object) -> object:
    """Calls while one allocation fails; the outcome, or ``None`` after a MemoryError.

    Nothing but the call itself allocates here, or this would lose what it returned.
    """
    _testcapi.set_nomemory(place, place + 1)
    try:
        outcome = call(*arguments)
    except MemoryError:
        outcome = None
    finally:
        _testcapi.remove_mem_hooks()
    return outcome


_TARGET = bytearray(200_000)
_SENT = "sent"
PLACES = 25
"""More allocations than a call makes."""
SENDING = ["send", "send a view", "send_many"]
RECEIVING = ["recv", "recv_many", "recv_into"]


def send_short_of_memory(verb: str, size: int) -> None:
    """Lets the first, the second, the third … allocation of a call that sends fail."""
    messages = [bytes([65 + n]) * size for n in range(2)]
    failures = 0
    for place in range(PLACES):
        sender, receiver = _ends()
        if verb == "send_many":
            sent = _without_memory(place, sender.send_many, messages[:1], LONG) == 1
        else:
            message = memoryview(messages[0]) if verb == "send a view" else messages[0]
            # None is what it gives when it sent.
            hooked = _core.StreamChannel.send
            sent = _without_memory(place, _gives_sent, hooked, sender, message) is _SENT
        assert sender.send(messages[1], LONG) is None
        expected = messages if sent else messages[1:]
        assert [_got(receiver.recv(LONG)) for _ in expected] == expected
        sender.close()
        receiver.close()
        failures += not sent
    say(failures)


def _gives_sent(send: Any, sender: object, message: object) -> str:
    send(sender, message, LONG)
    return _SENT


def receive_short_of_memory(verb: str, size: int) -> None:
    """Lets the first, the second, the third … allocation of a call that receives fail."""
    messages = [bytes([65 + n]) * size for n in range(3)]
    failures = 0
    for place in range(PLACES):
        sender, receiver = _ends()
        assert sender.send_many(messages, LONG) == len(messages)
        received: list[bytes] = []
        if verb == "recv":
            outcome = _without_memory(place, receiver.recv, LONG)
            received += [outcome] if isinstance(outcome, bytes) else []
        elif verb == "recv_many":
            outcome = _without_memory(place, receiver.recv_many, 2, LONG)
            received += outcome if isinstance(outcome, list) else []
        else:
            outcome = _without_memory(place, receiver.recv_into, _TARGET, LONG)
            received += [bytes(_TARGET[:outcome])] if isinstance(outcome, int) else []
        failures += outcome is None
        while len(received) < len(messages):
            received.append(_got(receiver.recv(LONG)))
        assert received == messages
        sender.close()
        receiver.close()
    say(failures)


def no_memory_for_a_part() -> None:
    """Times out in the middle of a message, with no memory to keep what had come at one place."""
    content = bytes(range(250)) * 400
    frame = (1 << 56 | len(content)).to_bytes(8, "little") + content + b"\x01"
    broken = 0
    for place in range(PLACES):
        ours, theirs = socket.socketpair()
        with theirs:
            channel = _core.StreamChannel(ours, 1 << 20, 1 << 20, 0)
            theirs.sendall(frame[:50_000])
            _without_memory(place, channel.recv_into, _TARGET, 0.0)
            theirs.sendall(frame[50_000:])
            outcome = channel.recv(LONG)
            if isinstance(outcome, _core.Event):
                broken += 1
                for again in (outcome, channel.recv(LONG), channel.send(b"x", LONG)):
                    assert isinstance(again, _core.Event)
                    assert again.status == _core.CORRUPT
            else:
                assert outcome == content
            channel.close()
    say(broken)


if __name__ == "__main__":
    run(globals())
