"""Crowds: threads of which some only try and others wait a moment, over and over.

Who tries comes in just as another thread leaves and a third one wakes up to take its turn. The peer
is another process, which no lock of this one holds up; it pauses, so that there is nothing to
receive or no room most of the time. In the middle of it the link is closed.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import proclink
from conformance.support import SOON, Background, again_and_again
from faults import crowds
from faults.children import Child
from faults.crowds import CROWD, LONGEST, message, number_of
from selection import Rounds

PIPE, SHM, TCP = "pipe://crowd", "shm://crowd", "tcp://127.0.0.1:0"
RECEIVED = 800
SENT = 700
BATCH = 4

pytestmark = pytest.mark.parametrize(
    "interrupted", [False, True], ids=["undisturbed", "interrupted"]
)


class Tick(Exception):
    """Raised by the signal handler."""


class Ticks:
    """A signal a millisecond, whose handler raises in the main thread."""

    def __init__(self) -> None:
        self._armed = False
        self.count = 0

    def raise_one(self, _number: int, _frame: FrameType | None) -> None:
        """The handler. After the call of proclink, it may come before its result is kept."""
        if self._armed:
            self._armed = False
            self.count += 1
            raise Tick

    def during(self, call: Callable[[], None]) -> bool:
        """Whether the call was made to its end."""
        try:
            self._armed = True
            call()
            self._armed = False
        except Tick:
            return False
        return True


@pytest.fixture
def ticks(interrupted: bool) -> Iterator[Ticks]:
    ticks = Ticks()
    before = signal.signal(signal.SIGALRM, ticks.raise_one)
    if interrupted:
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    yield ticks
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Member:
    """One of a crowd. Those with odd numbers only try."""

    def __init__(self, link: proclink.Link, number: int) -> None:
        self.link = link
        self.only_tries = number % 2 == 1
        self.chance = random.Random(number)
        self.numbers: list[int] = []

    def moment(self) -> float:
        """Seconds to wait."""
        return self.chance.choice((1e-4, 1e-3))


class Receiver(Member):
    def act(self) -> None:
        with contextlib.suppress(proclink.TimedOut, proclink.BufferTooSmall):
            self.numbers += map(number_of, self._receive())

    def _receive(self) -> list[bytes]:
        if self.only_tries:
            return [self.link.recv(timeout=0)]
        match self.chance.randrange(6):
            case 0:
                return self.link.recv_many(BATCH, timeout=self.moment())
            case 1:
                buffer = bytearray(LONGEST)
                return [bytes(buffer[: self.link.recv_into(buffer, timeout=self.moment())])]
            case 2:
                self.link.recv_into(bytearray(7), timeout=self.moment())
                raise AssertionError("a message without a number")
            case 3:
                with self.link.recv_view(timeout=self.moment()) as view:
                    return [bytes(view)]
            case _:
                return [self.link.recv(timeout=self.moment())]


class Sender(Member):
    def __init__(self, link: proclink.Link, number: int) -> None:
        super().__init__(link, number)
        self._next = number
        self._sends_nothing = number == 1

    def act(self) -> None:
        if self._sends_nothing:
            self.link.send_many([])  # has its turn nevertheless
            return
        some = [self._next + CROWD * n for n in range(BATCH)]
        sent = 0
        try:
            sent = self._send([message(number) for number in some])
        except (proclink.TimedOut, proclink.LinkClosed) as error:
            sent = error.sent
            if isinstance(error, proclink.LinkClosed):
                raise
        finally:
            self.numbers += some[:sent]
            self._next += CROWD * sent

    def skip(self) -> None:
        """Leaves out what is sent already, perhaps."""
        self._next += CROWD * BATCH

    def _send(self, messages: list[bytes]) -> int:
        """How many it sent of them."""
        if self.only_tries:
            self.link.send(messages[0], timeout=0)
            return 1
        match self.chance.randrange(6):
            case 0:
                with self.link.loan(len(messages[0]), timeout=self.moment()) as room:
                    room[:] = messages[0]
            case 1:
                with pytest.raises(proclink.MessageTooLarge):
                    self.link.send(bytes(LONGEST + 1), timeout=self.moment())
                return 0
            case 2:
                self.link.send(messages[0], timeout=self.moment())
            case _:
                self.link.send_many(messages, timeout=self.moment())
                return BATCH
        return 1


def _act(crowd: list[Receiver] | list[Sender], count: int, ticks: Ticks) -> None:
    """Lets them act, the first one in the main thread, and closes the link in the middle of it."""
    first, *others = crowd
    acting = [Background(lambda one=one: again_and_again(one.act)) for one in others]  # type: ignore[misc]
    while sum(len(one.numbers) for one in crowd) < count and all(o.running() for o in acting):
        if not ticks.during(first.act) and isinstance(first, Sender):
            first.skip()
    first.link.close()
    for one in acting:
        with pytest.raises(proclink.LinkClosed):
            one.result()


# Over a stream, who tries looks into the socket only where waits spin.
@pytest.mark.parametrize(
    ("url", "spin"), [(PIPE, "auto"), (SHM, 0), (TCP, "auto")], ids=["pipe", "shm", "tcp"]
)
def test_a_crowd_receives_each_message_once(
    url: str, spin: Any, ticks: Ticks, rounds: Rounds
) -> None:
    with (
        proclink.listen(url, ring_size=64 * 1024, spin=spin) as listener,
        Child(crowds.send_to_crowds, listener.address, rounds.loaded) as child,
    ):
        for _ in range(rounds.loaded):
            before = ticks.count
            crowd = [Receiver(listener.accept(timeout=SOON), 0)]
            crowd += [Receiver(crowd[0].link, number) for number in range(1, CROWD)]
            _act(crowd, RECEIVED, ticks)
            assert all(one.numbers == sorted(one.numbers) for one in crowd)
            received = sorted(number for one in crowd for number in one.numbers)
            assert len(set(received)) == len(received)
            lost = received[-1] + 1 - len(received)
            assert lost <= BATCH * (ticks.count - before)
            assert received[-1] < child.hear()


# Where looking for room takes no system call (shm), or a socket is hardly ever full (tcp), the
# wrong moment to come in is too rare for a test of seconds.
@pytest.mark.parametrize("url", [PIPE], ids=["pipe"])
def test_a_crowd_sends_each_message_once(url: str, ticks: Ticks, rounds: Rounds) -> None:
    with (
        proclink.listen(url, ring_size=64 * 1024, max_message=LONGEST, spin=0) as listener,
        Child(crowds.receive_from_crowds, listener.address, rounds.loaded) as child,
    ):
        for _ in range(rounds.loaded):
            link = listener.accept(timeout=SOON)
            crowd = [Sender(link, number) for number in range(CROWD)]
            _act(crowd, SENT, ticks)
            received = child.hear()
            for number, one in enumerate(crowd):
                came = [n for n in received if n % CROWD == number]
                if number == 0:  # whose interrupted ones may have come
                    assert came == sorted(set(came))
                    came = [n for n in came if n in one.numbers]
                assert came == one.numbers
