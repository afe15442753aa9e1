"""The measuring loops of both ends: plain calls of the public API."""

from __future__ import annotations

import array
import contextlib
import gc
import itertools
import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import proclink
from proclink.bench._rows import Samples

Mode: TypeAlias = Literal["pingpong", "stream", "stream_many"]
MODES: tuple[Mode, ...] = ("pingpong", "stream", "stream_many")

MOST_SAMPLES = 1_000_000
"""Of one round; more would only take memory."""

_WARM_UP = 0.2  # of the measured time, and before it
_FEWEST_WARM_UP_TRIPS = 16
_RUNS = 10  # of a stream, in the measured time
_BATCH_MESSAGES = 64
_BATCH_BYTES = 1024 * 1024
_ORDER = struct.Struct("<QQ?")
_CONFIRMATION = struct.Struct("<Q")


class WrongMessage(Exception):
    """A message came that is not the one that was sent."""


Payloads: TypeAlias = tuple[bytes, bytes]


def payloads_of(size: int) -> Payloads:
    """The two messages both ends know, sent in turn: an echo of the one before is seen."""
    first = random.Random(size).randbytes(size)  # noqa: S311 - not a secret
    return first, bytes(byte ^ 0xFF for byte in first[:1]) + first[1:]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keeps the garbage collector out of the loop."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --- pingpong -------------------------------------------------------------------------------------


def ask_pingpong(link: proclink.Link, size: int, seconds: float) -> Samples:
    """Sends, waits for the echo, and times that, for about ``seconds``."""
    payloads = payloads_of(size)
    with _undisturbed():
        warm_up = _trips(link, payloads, _WARM_UP * seconds, MOST_SAMPLES // 10)
        while len(warm_up) < _FEWEST_WARM_UP_TRIPS and sum(warm_up) < seconds * 1e9:
            warm_up += _trips(link, payloads, 0, 1)
        # Four times what the warm-up's pace asks for: it may have been slower than what comes.
        room = min(MOST_SAMPLES, int(4e9 * seconds * len(warm_up) / sum(warm_up)) + 1024)
        times = _trips(link, payloads, seconds, room)
    link.send(_end_of(size))
    return Samples(times, 1)


def _trips(link: proclink.Link, payloads: Payloads, seconds: float, room: int) -> array.array[int]:
    send, recv, clock = link.send, link.recv, time.perf_counter_ns
    times = array.array("q", bytes(8 * room))
    deadline = clock() + int(seconds * 1e9)
    done = 0
    for payload in itertools.islice(itertools.cycle(payloads), room):
        start = clock()
        send(payload)
        reply = recv()
        end = clock()
        if reply != payload:
            raise WrongMessage(f"an echo of {len(payload)} bytes is not what was sent")
        times[done] = end - start
        done += 1
        if end >= deadline:
            break
    return times[:done]


def answer_pingpong(link: proclink.Link, size: int) -> None:
    """Echoes until the end is told."""
    send, recv = link.send, link.recv
    with _undisturbed():
        while len(message := recv()) == size:
            send(message)
    _expect(message, _end_of(size))


def _end_of(size: int) -> bytes:
    """A message of another length than the measured ones."""
    return b"" if size else b"\0"


# --- stream ---------------------------------------------------------------------------------------


def batch_length(size: int) -> int:
    """How many messages a ``send_many`` takes: an even number, for the payloads' turn."""
    return max(2, min(_BATCH_MESSAGES, _BATCH_BYTES // max(1, size)) // 2 * 2)


def send_stream(link: proclink.Link, size: int, seconds: float, *, batched: bool) -> Samples:
    """Sends runs of messages, each timed from its first message to the confirmation of all."""
    payloads = payloads_of(size)
    unit = batch_length(size) if batched else 2
    batch = list(payloads) * (unit // 2)
    run = _batched_run if batched else _plain_run
    wanted = seconds / _RUNS * 1e9
    with _undisturbed():
        count, warmed_up = unit, 0
        while True:
            took = _timed(link, run, batch, count, check=True)
            warmed_up += took
            if took >= wanted / 2 or warmed_up >= seconds * 1e9:
                break
            growth = min(8.0, max(1.5, wanted / took))
            count = max(count + unit, int(count * growth) // unit * unit)
        # The checks of the warm-up took time too, so this settles the length of a run.
        took = _timed(link, run, batch, count, check=False)
        count = max(unit, int(count * min(8.0, wanted / took)) // unit * unit)
        times = array.array("q")
        left = seconds * 1e9
        while left > 0:
            times.append(_timed(link, run, batch, count, check=False))
            left -= times[-1]
    link.send(_ORDER.pack(0, 0, False))
    return Samples(times, count)


_Run: TypeAlias = Callable[[proclink.Link, list[bytes], int], None]


def _plain_run(link: proclink.Link, batch: list[bytes], count: int) -> None:
    send = link.send
    for payload in itertools.islice(itertools.cycle(batch), count):
        send(payload)


def _batched_run(link: proclink.Link, batch: list[bytes], count: int) -> None:
    send_many = link.send_many
    for _ in range(count // len(batch)):
        send_many(batch)


def _timed(link: proclink.Link, run: _Run, batch: list[bytes], count: int, *, check: bool) -> int:
    link.send(_ORDER.pack(count, len(batch), check))
    _expect(link.recv(), _CONFIRMATION.pack(0))
    start = time.perf_counter_ns()
    run(link, batch, count)
    confirmation = link.recv()
    end = time.perf_counter_ns()
    _expect(confirmation, _CONFIRMATION.pack(count))
    return end - start


def receive_stream(link: proclink.Link, size: int, *, batched: bool) -> None:
    """Receives runs of messages and confirms each.

    Every message of the warm-up is compared with what was sent. In a measured run, whose time the
    comparing would be part of, that is every message's length, and the whole of the last one.
    """
    payloads = payloads_of(size)
    take = _take_batched if batched else _take_plain
    with _undisturbed():
        while True:
            count, most, check = _ORDER.unpack(link.recv())
            if not count:
                return
            link.send(_CONFIRMATION.pack(0))
            last = take(link, payloads, count, most, check)
            link.send(_CONFIRMATION.pack(count))
            _expect(last, payloads[(count - 1) & 1])


def _take_plain(
    link: proclink.Link, payloads: Payloads, count: int, _most: int, check: bool
) -> bytes:
    recv = link.recv
    size = len(payloads[0])
    message = b""
    for index in range(count):
        message = recv()
        if len(message) != size or (check and message != payloads[index & 1]):
            raise WrongMessage(f"message {index} of a stream is not what was sent")
    return message


def _take_batched(
    link: proclink.Link, payloads: Payloads, count: int, most: int, check: bool
) -> bytes:
    recv_many = link.recv_many
    size = len(payloads[0])
    message = b""
    index = 0
    while index < count:
        for message in recv_many(min(most, count - index)):
            if len(message) != size or (check and message != payloads[index & 1]):
                raise WrongMessage(f"message {index} of a stream is not what was sent")
            index += 1
    return message


def _expect(message: bytes, expected: bytes) -> None:
    if message != expected:
        raise WrongMessage("the other end is not where it should be in the measurement")


# --- both -----------------------------------------------------------------------------------------


def run_client(link: proclink.Link, mode: Mode, size: int, seconds: float) -> Samples:
    """The measuring end."""
    if mode == "pingpong":
        return ask_pingpong(link, size, seconds)
    return send_stream(link, size, seconds, batched=mode == "stream_many")


def run_server(link: proclink.Link, mode: Mode, size: int) -> None:
    """The other end."""
    if mode == "pingpong":
        answer_pingpong(link, size)
    else:
        receive_stream(link, size, batched=mode == "stream_many")
