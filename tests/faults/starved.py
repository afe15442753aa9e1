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
    one, other = (_core.StreamChannel(end.detach(), limit, limit, 0) for end in pair)
    return one, other


def _send(sender: _core.StreamChannel, message: bytes) -> object:
    return sender.send(message, LONG)


def _send_view(sender: _core.StreamChannel, message: bytes) -> object:
    return sender.send(memoryview(message), LONG)


def _send_many(sender: _core.StreamChannel, message: bytes) -> object:
    return sender.send_many([message], LONG)


def _recv(receiver: _core.StreamChannel) -> list[bytes]:
    return [_got(receiver.recv(LONG))]


def _recv_many(receiver: _core.StreamChannel) -> list[bytes]:
    messages = receiver.recv_many(2, LONG)
    assert isinstance(messages, list)
    return messages


def _recv_into(receiver: _core.StreamChannel) -> list[bytes]:
    return [bytes(_TARGET[: _got(receiver.recv_into(_TARGET, LONG))])]


def _got(outcome: _Result | _core.Event) -> _Result:
    assert not isinstance(outcome, _core.Event), outcome.status
    return outcome


_TARGET = bytearray(200_000)
_SENDING = {"send": _send, "send a view": _send_view, "send_many": _send_many}
_RECEIVING = {"recv": _recv, "recv_many": _recv_many, "recv_into": _recv_into}
SHORT_OF_MEMORY = [*_SENDING, *_RECEIVING]


def short_of_memory(verb: str, size: int) -> None:
    """Lets the first, the second, the third … allocation of a call fail, until none does."""

    def without_memory(place: int, call: Callable[[], _Result]) -> _Result | None:
        _testcapi.set_nomemory(place, place + 1)
        try:
            return call()
        except MemoryError:
            return None
        finally:
            _testcapi.remove_mem_hooks()

    messages = [bytes([65 + n]) * size for n in range(3)]
    place = failures = 0
    while True:
        sender, receiver = _ends()
        if verb in _SENDING:
            done = without_memory(place, lambda: (_SENDING[verb](sender, messages[0]),)) is not None  # noqa: B023
            assert sender.send(messages[1], LONG) is None
            expected = messages[:2] if done else messages[1:2]
            assert [_got(receiver.recv(LONG)) for _ in expected] == expected
        else:
            assert sender.send_many(messages, LONG) == len(messages)
            received = without_memory(place, lambda: _RECEIVING[verb](receiver))  # noqa: B023
            done = received is not None
            received = received or []
            while len(received) < len(messages):
                received.append(_got(receiver.recv(LONG)))
            assert received == messages
        sender.close()
        receiver.close()
        if done and place > 20:
            break
        failures += not done
        place += 1
    say(failures)


def no_memory_for_a_part() -> None:
    """Times out in the middle of a message, without memory to keep what had come."""
    ours, theirs = socket.socketpair()
    channel = _core.StreamChannel(ours.detach(), 1 << 20, 1 << 20, 0)
    frame = (1 << 56 | 100_000).to_bytes(8, "little") + bytes(100_000) + b"\x01"
    theirs.sendall(frame[:50_000])
    target = bytearray(100_000)
    _testcapi.set_nomemory(0, 0)
    try:
        channel.recv_into(target, 0.0)
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
    theirs.sendall(frame[50_000:])
    for outcome in (channel.recv(LONG), channel.recv(LONG), channel.send(b"x", LONG)):
        assert isinstance(outcome, _core.Event)
        assert outcome.status == _core.CORRUPT
    channel.close()
    say("broken off")


if __name__ == "__main__":
    run(globals())
