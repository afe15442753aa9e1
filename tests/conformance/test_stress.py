"""Threads that come into one direction from all sides, switched as often as can be."""

from __future__ import annotations

import collections
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import proclink
from conformance.support import NOISE, SOON, Background, Flow, Pair, wait_for

THREADS = 6
COUNT = 3000
END = b"end"


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads are switched as often as can be, and one of them is always busy."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    busy = Background(spin)
    yield
    over.set()
    busy.result()
    sys.setswitchinterval(before)


def _message(number: int) -> bytes:
    return number.to_bytes(4, "little") + NOISE[number % 1000 : number % 1000 + number * 7 % 3000]


def _number(message: bytes) -> int:
    number = int.from_bytes(message[:4], "little")
    assert message == _message(number), "torn"
    return number


def _send(link: proclink.Link, number: int, chance: random.Random) -> None:
    message = _message(number)
    match chance.randrange(6):
        case 0:
            link.send_many([message], timeout=SOON)
        case 1:
            with link.loan(len(message), timeout=SOON) as room:
                room[:] = message
        case 2:
            # Not buffers: refused in the middle of whatever the others are doing.
            with pytest.raises(TypeError):
                link.send_many([message, "text"], timeout=SOON)  # type: ignore[list-item]
            link.send(bytearray(message), timeout=SOON)
        case _:
            link.send(message, timeout=SOON)


def _receive(link: proclink.Link, chance: random.Random) -> list[bytes]:
    match chance.randrange(6):
        case 0:
            return link.recv_many(3, timeout=SOON)
        case 1:
            buffer = bytearray(4000)
            return [bytes(buffer[: link.recv_into(buffer, timeout=SOON)])]
        case 2:
            with link.recv_view(timeout=SOON) as view:
                return [bytes(view)]
        case 3:
            try:
                return [link.recv(timeout=0)]
            except proclink.TimedOut:
                return []
        case _:
            return [link.recv(timeout=SOON)]


def _receivers(link: proclink.Link, give_back: Callable[[], None]) -> list[Background[list[int]]]:
    """Threads that receive until each has seen an end; the numbers that each received."""

    def receive(thread: int) -> list[int]:
        chance = random.Random(thread)
        numbers: list[int] = []
        while True:
            messages = _receive(link, chance)
            numbers += [_number(message) for message in messages if message != END]
            ends = messages.count(END)
            for _ in range(ends - 1):
                give_back()  # it was another one's
            if ends:
                return numbers

    return [Background(lambda thread=thread: receive(thread)) for thread in range(THREADS)]  # type: ignore[misc]


def test_many_receivers_of_a_sender_that_pauses(flow: Flow) -> None:
    """So that they always queue, and one is always coming in as another leaves."""
    receiving = _receivers(flow.receiver, lambda: flow.sender.send(END, timeout=SOON))
    chance = random.Random(1)
    for number in range(COUNT):
        flow.sender.send(_message(number), timeout=SOON)
        pause = time.perf_counter() + chance.random() * 3e-5
        while time.perf_counter() < pause:
            pass
    for _ in receiving:
        flow.sender.send(END, timeout=SOON)
    received = [receiver.result() for receiver in receiving]
    assert all(numbers == sorted(numbers) for numbers in received)
    assert sorted(number for numbers in received for number in numbers) == list(range(COUNT))


def test_many_senders_and_many_receivers(flow: Flow) -> None:
    receiving = _receivers(flow.receiver, lambda: flow.sender.send(END, timeout=SOON))

    def send(thread: int) -> None:
        chance = random.Random(thread)
        for number in range(thread, COUNT, THREADS):
            _send(flow.sender, number, chance)

    sending = [Background(lambda thread=thread: send(thread)) for thread in range(THREADS)]  # type: ignore[misc]
    for sender in sending:
        sender.result()
    for _ in receiving:
        flow.sender.send(END, timeout=SOON)
    received = collections.Counter(number for one in receiving for number in one.result())
    assert received == collections.Counter(range(COUNT))


def test_close_in_the_middle(pair: Pair) -> None:
    """Everybody at both ends hears of it, in the words for what happened to their end."""

    received: list[bytes] = []

    def chatter(link: proclink.Link, thread: int) -> None:
        chance = random.Random(thread)
        while True:
            if thread % 2:
                _send(link, chance.randrange(COUNT), chance)
            else:
                received.extend(_receive(link, chance))

    here = [Background(lambda n=n: chatter(pair.client, n)) for n in range(THREADS)]  # type: ignore[misc]
    there = [Background(lambda n=n: chatter(pair.server, n)) for n in range(THREADS)]  # type: ignore[misc]
    wait_for(lambda: len(received) > 200, "a lively chatter")
    pair.client.close()
    for one in here:
        with pytest.raises(proclink.LinkClosed):
            one.result()
    pair.server.close()
    for one in there:
        with pytest.raises((proclink.LinkClosed, proclink.Disconnected)):
            one.result()
