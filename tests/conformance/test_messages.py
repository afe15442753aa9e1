"""Messages arrive whole, once, in order, and as the bytes they were."""

from __future__ import annotations

import array
import ctypes
import math
import mmap
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import proclink
from conformance.support import NOISE, SOON, Flow, Pair, receive_until, running
from conftest import MakePair

RING = 64 * 1024
LONGEST_RECORD = RING // 2 - 16
EDGES = [48, 64, 4080, 4096, 16 * 1024, LONGEST_RECORD, 32 * 1024, RING - 16, RING, 128 * 1024]
SIZES = sorted(
    {0, 1, 47, 49, 63, 65, 100_000, 1024 * 1024 - 1, 1024 * 1024 + 1, 5_000_001}
    | {edge + step for edge in EDGES for step in (-9, -8, -1, 0, 1, 8, 9)}
)
VALUES = np.arange(24, dtype=np.float64).reshape(4, 6)
ARRAYS: dict[str, Any] = {
    "bool": np.array([True, False]),
    "int8": np.array([-1, 2], np.int8),
    "big-endian": np.array([1, 2, 3], ">u4"),
    "half": np.array([1.5, -2], np.float16),
    "float": VALUES,
    "complex": VALUES.astype(np.complex128),
    "record": np.array([(1, 2.5)], [("a", "i2"), ("b", "f8")]),
    "text": np.array(["ab", "c"]),
    "no dimension": np.array(7.25),
    "empty": np.empty((0, 3)),
    "Fortran": np.asfortranarray(VALUES),
    "transposed": VALUES.T,
    "strided": VALUES[::2, 1::3],
    "backwards": VALUES[::-1],
    "read-only": np.broadcast_to(VALUES[0], (3, 6)),
    "dates": np.array(["2020-01-01", "2021-01-01"], "M8[s]"),
    "strided dates": np.array([1, 2, 3], "m8[ns]")[::2],
    "record with a date": np.array([(1, 2)], [("OPX&", "M8[ns]"), ("b", "f8")]),
    "record with odd names": np.array([(1, 2)], [("OPX&", "i8"), ("b", "f8")]),
}


def _bytes_like() -> Iterator[tuple[str, Any, bytes]]:
    yield "bytes", b"abc", b"abc"
    yield "bytes subclass", type("Text", (bytes,), {})(b"abc"), b"abc"
    yield "bytearray", bytearray(b"abc"), b"abc"
    yield "memoryview", memoryview(b"abc"), b"abc"
    yield "strided memoryview", memoryview(b"abcdef")[::2], b"ace"
    yield "array.array", array.array("d", [1.5, 2.5]), array.array("d", [1.5, 2.5]).tobytes()
    yield "ctypes", (ctypes.c_int16 * 2)(1, 2), b"\1\0\2\0"
    yield "mmap", mmap.mmap(-1, 4), bytes(4)
    yield "pickle buffer", pickle.PickleBuffer(b"abc"), b"abc"
    yield "empty bytes", b"", b""
    yield "empty bytearray", bytearray(), b""
    yield "empty memoryview", memoryview(b""), b""
    for name, value in ARRAYS.items():
        yield f"numpy {name}", value, value.tobytes(order="C")


CASES = list(_bytes_like())


@pytest.mark.parametrize(("message", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_anything_bytes_like_arrives_as_its_bytes(
    flow: Flow, message: Any, expected: bytes
) -> None:
    flow.sender.send(message, timeout=SOON)
    flow.sender.send_many([message, b"|", message], timeout=SOON)
    received = [flow.receiver.recv(timeout=SOON) for _ in range(4)]
    assert received == [expected, expected, b"|", expected]
    assert all(type(message) is bytes for message in received)


def test_long_strided_array_arrives_as_its_bytes(flow: Flow) -> None:
    values: Any = np.arange(400_000, dtype=np.int32).reshape(400, 1000).T[::2]
    with running(lambda: flow.sender.send(values, timeout=SOON)):
        assert flow.receiver.recv(timeout=SOON) == values.tobytes()


@pytest.mark.parametrize(
    "message", ["text", 7, None, [1, 2], object()], ids=lambda message: type(message).__name__
)
def test_nothing_else_is_sent(flow: Flow, message: Any) -> None:
    with pytest.raises(TypeError):
        flow.sender.send(message, timeout=SOON)
    flow.sender.send(b"after", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"after"


POINTERS: dict[str, Any] = {
    "objects": np.array([object()]),
    "record of objects": np.array([(1, "x")], [("a", "i4"), ("b", "O")]),
    "record of objects and dates": np.array([(1, "x")], [("a", "M8[s]"), ("b", "O")]),
    "pointers": (ctypes.POINTER(ctypes.c_int) * 2)(),
    "addresses": (ctypes.c_void_p * 2)(),
}


@pytest.mark.parametrize("array", POINTERS.values(), ids=POINTERS)
def test_pointers_are_neither_sent_nor_received(flow: Flow, array: Any) -> None:
    with pytest.raises(TypeError, match="pointers"):
        flow.sender.send(array, timeout=SOON)
    with pytest.raises(TypeError, match="pointers"):
        flow.sender.send_many([array], timeout=SOON)
    flow.sender.send(bytes(8), timeout=SOON)
    with pytest.raises(TypeError, match="pointers"):
        flow.receiver.recv_into(array, timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == bytes(8)


def test_a_batch_with_pointers_in_it_tells_what_it_sent(flow: Flow) -> None:
    with pytest.raises(TypeError, match="pointers") as caught:
        flow.sender.send_many([b"first", POINTERS["objects"]], timeout=SOON)
    flow.sender.send(b"after", timeout=SOON)
    if notes := getattr(caught.value, "__notes__", []):
        assert notes == ["send_many() had sent 1 before it"]
        assert flow.receiver.recv(timeout=SOON) == b"first"
    assert flow.receiver.recv(timeout=SOON) == b"after"


def test_every_size(flow: Flow) -> None:
    def send() -> None:
        for size in SIZES:
            flow.sender.send(NOISE[size % 1000 : size % 1000 + size], timeout=SOON)

    with running(send):
        for size in SIZES:
            received = flow.receiver.recv(timeout=SOON)
            assert received == NOISE[size % 1000 : size % 1000 + size], size


def test_every_size_in_small_steps_of_time(flow: Flow) -> None:
    """A message that arrives over several calls is put together again."""
    sizes = [100_000, 10, 3_000_000, 0, LONGEST_RECORD, 40_000, 1]

    def send() -> None:
        for size in sizes:
            flow.sender.send(NOISE[:size], timeout=SOON)

    with running(send) as sending:
        for number, size in enumerate(sizes):
            message, target = None, bytearray(size)
            while message is None:
                try:
                    if number % 2:
                        assert flow.receiver.recv_into(target, timeout=0) == size
                        message = bytes(target)
                    else:
                        message = flow.receiver.recv(timeout=0)
                except proclink.TimedOut:
                    assert sending.running() or flow.receiver.state is proclink.State.CONNECTED
            assert message == NOISE[:size]


def test_many_messages_in_order(flow: Flow) -> None:
    count = 20_000

    def send() -> None:
        for number in range(count):
            flow.sender.send(number.to_bytes(4, "little") * (1 + number % 50), timeout=SOON)

    with running(send):
        for number in range(count):
            expected = number.to_bytes(4, "little") * (1 + number % 50)
            assert flow.receiver.recv(timeout=SOON) == expected


@pytest.mark.parametrize("limit", [0, 1, 4096, 40_000, 100_000, 1_000_000])
def test_the_longest_message_passes_and_one_byte_more_does_not(
    make_pair: MakePair, limit: int
) -> None:
    server, client = make_pair({"ring_size": RING, "max_message": limit}, {"max_message": limit})
    for sender, receiver in ((server, client), (client, server)):
        with running(lambda sender=sender: sender.send(NOISE[:limit], timeout=SOON)):  # type: ignore[misc]
            assert receiver.recv(timeout=SOON) == NOISE[:limit]
        with pytest.raises(proclink.MessageTooLarge) as caught:
            sender.send(NOISE[: limit + 1], timeout=SOON)
        assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
        sender.send(b"", timeout=SOON)
        assert receiver.recv(timeout=SOON) == b""


def test_the_lower_limit_of_both_ends_counts(make_pair: MakePair) -> None:
    server, client = make_pair({"max_message": 1000}, {"max_message": 100})
    for sender, receiver in ((server, client), (client, server)):
        with pytest.raises(proclink.MessageTooLarge) as caught:
            sender.send(bytes(101), timeout=SOON)
        assert caught.value.limit == 100
        sender.send(bytes(100), timeout=SOON)
        assert receiver.recv(timeout=SOON) == bytes(100)


# --- send_many ------------------------------------------------------------------------------------


def test_send_many_takes_any_iterable(flow: Flow) -> None:
    flow.sender.send_many([])
    flow.sender.send_many([b"1", bytearray(b"2")], timeout=SOON)
    flow.sender.send_many((b"3", memoryview(b"4")), timeout=SOON)
    flow.sender.send_many((bytes([c]) for c in b"56"), timeout=SOON)
    flow.sender.send_many({b"7": 1}, timeout=SOON)
    received = [flow.receiver.recv(timeout=SOON) for _ in range(7)]
    assert received == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


def test_send_many_of_mixed_sizes(flow: Flow) -> None:
    messages = [NOISE[size : 2 * size] for size in SIZES if size < 2_000_000] * 3
    messages += [NOISE[:size] for size in range(300)]
    with running(lambda: flow.sender.send_many(messages, timeout=SOON)):
        assert [flow.receiver.recv(timeout=SOON) for _ in messages] == messages


@pytest.mark.parametrize("size", [100, 4096, 16_384, 16_385, RING // 2 - 16, RING // 2 - 15, RING])
def test_send_many_of_more_than_the_ring_holds(make_pair: MakePair, size: int) -> None:
    sender, receiver = make_pair({"ring_size": RING}, {})
    messages = [NOISE[i : i + size - i % 3] for i in range(3 * RING // size + 10)]
    with running(lambda: sender.send_many(messages, timeout=SOON)):
        assert [receiver.recv(timeout=SOON) for _ in messages] == messages


def test_send_many_with_something_else_in_it_sends_nothing(flow: Flow) -> None:
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            flow.sender.send_many([b"a", b"b", wrong], timeout=SOON)  # type: ignore[list-item]
    for no_messages in (b"bytes", "text", 5):
        with pytest.raises(TypeError):
            flow.sender.send_many(no_messages, timeout=SOON)  # type: ignore[arg-type]
    flow.sender.send(b"after", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"after"


@pytest.mark.parametrize("size", [10, 5000])
def test_send_many_tells_how_many_came_before_one_too_large(make_pair: MakePair, size: int) -> None:
    server, client = make_pair({"max_message": 10_000})
    for sender, receiver in ((server, client), (client, server)):
        messages = [bytes([number]) * size for number in range(6)]
        with pytest.raises(proclink.MessageTooLarge) as caught:
            sender.send_many([*messages[:4], bytes(10_001), *messages[4:]], timeout=SOON)
        assert (caught.value.sent, caught.value.size) == (4, 10_001)
        sender.send(b"end", timeout=SOON)
        assert receive_until(receiver, b"end") == messages[:4]


# --- recv_many, recv_into -------------------------------------------------------------------------


def test_recv_many_gives_what_is_at_hand(flow: Flow) -> None:
    messages = [b"%d" % number for number in range(100)]
    flow.sender.send_many(messages, timeout=SOON)
    received: list[bytes] = []
    while len(received) < 100:
        some = flow.receiver.recv_many(7, timeout=SOON)
        assert 1 <= len(some) <= 7
        received += some
    assert received == messages
    with pytest.raises(proclink.TimedOut):
        flow.receiver.recv_many(timeout=0)


def test_recv_many_of_mixed_sizes(flow: Flow) -> None:
    messages = [NOISE[:size] for size in SIZES if size < 200_000]
    with running(lambda: flow.sender.send_many(messages, timeout=SOON)):
        received: list[bytes] = []
        while len(received) < len(messages):
            received += flow.receiver.recv_many(timeout=SOON)
    assert received == messages


@pytest.mark.parametrize("most", [0, -1])
def test_recv_many_of_none_makes_no_sense(flow: Flow, most: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        flow.receiver.recv_many(most, timeout=0)


@pytest.mark.parametrize("size", [0, 1, 5000, 40_000, 300_000])
def test_recv_into_a_buffer(flow: Flow, size: int) -> None:
    for extra in (0, 1, 1000):
        buffer = bytearray(b"\xee" * (size + extra))
        with running(lambda: flow.sender.send(NOISE[:size], timeout=SOON)):
            assert flow.receiver.recv_into(buffer, timeout=SOON) == size
        assert buffer == NOISE[:size] + b"\xee" * extra


@pytest.mark.parametrize("size", [1, 5000, 40_000, 300_000])
def test_a_buffer_too_small_leaves_the_message(flow: Flow, size: int) -> None:
    buffer = bytearray(b"\xee" * (size - 1))
    with running(lambda: flow.sender.send(NOISE[:size], timeout=SOON)):
        for _ in range(2):
            with pytest.raises(proclink.BufferTooSmall) as caught:
                flow.receiver.recv_into(buffer, timeout=SOON)
            assert caught.value.needed == size
        assert buffer == b"\xee" * (size - 1)
        assert flow.receiver.recv(timeout=SOON) == NOISE[:size]


@pytest.mark.parametrize(
    "dtype",
    ["u1", "f8", ">i4", "c16", "M8[s]", [("a", "i2"), ("b", "f8")], [("a", "m8[s]"), ("b", "f8")]],
    ids=str,
)
def test_recv_into_an_array_of_any_kind(flow: Flow, dtype: Any) -> None:
    target: Any = np.zeros((3, 4), dtype)
    data = NOISE[: target.nbytes]
    flow.sender.send(data, timeout=SOON)
    assert flow.receiver.recv_into(target, timeout=SOON) == len(data)
    assert target.tobytes() == data
    flow.sender.send(data + b"x", timeout=SOON)
    with pytest.raises(proclink.BufferTooSmall):
        flow.receiver.recv_into(target, timeout=SOON)
    flow.receiver.recv(timeout=SOON)


def test_recv_into_an_empty_array(flow: Flow) -> None:
    empty: Any = np.empty((0, 3))
    flow.sender.send(b"", timeout=SOON)
    assert flow.receiver.recv_into(empty, timeout=SOON) == 0
    flow.sender.send(b"", timeout=SOON)
    assert flow.receiver.recv_into(bytearray(), timeout=SOON) == 0


@pytest.mark.parametrize(
    "buffer",
    [
        bytes(10),
        memoryview(bytes(10)),
        memoryview(bytearray(20))[::2],
        np.zeros((4, 4), order="F"),
        np.zeros(8, "M8[s]")[::2],
        np.broadcast_to(VALUES[0], (3, 6)),
        "text",
        math.pi,
        None,
    ],
    ids=[
        "bytes",
        "read-only view",
        "strided view",
        "Fortran",
        "dates",
        "read-only",
        "str",
        "float",
        "None",
    ],
)
def test_recv_into_something_else_leaves_the_message(flow: Flow, buffer: Any) -> None:
    flow.sender.send(b"message", timeout=SOON)
    with pytest.raises((BufferError, TypeError)):
        flow.receiver.recv_into(buffer, timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"message"


def test_both_directions_at_once(pair: Pair) -> None:
    messages = [NOISE[:size] for size in (1, 5000, 100_000, 30)] * 50

    def send(link: proclink.Link) -> None:
        for message in messages:
            link.send(message, timeout=SOON)

    def exchange(link: proclink.Link) -> None:
        with running(lambda: send(link)):
            assert [link.recv(timeout=SOON) for _ in messages] == messages

    with running(lambda: exchange(pair.server)):
        exchange(pair.client)


def test_ping_pong(pair: Pair) -> None:
    def echo() -> None:
        for _ in range(300):
            pair.server.send(pair.server.recv(timeout=SOON), timeout=SOON)

    with running(echo):
        for number in range(300):
            message = NOISE[: number * 37]
            pair.client.send(message, timeout=SOON)
            assert pair.client.recv(timeout=SOON) == message
