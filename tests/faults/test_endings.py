"""An ending has one truth: who closes or dies, what the other is doing, and what it hears of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import proclink
from conformance.support import NOISE, SOON, Background, again_and_again, wait_for
from conformance.transports import TRANSPORTS, TransportUnderTest
from faults import roles
from faults.children import Child
from selection import Rounds

BRIEF = 0.05
"""Seconds for a close that waits in vain."""

BETWEEN_PROCESSES = [t for t in TRANSPORTS if t.name not in ("memory", "pipe-path")]

ENDS: dict[str, type[proclink.Disconnected]] = {
    "closes": proclink.PeerClosed,
    "closes while it sends": proclink.PeerClosed,
    "closes by signal": proclink.PeerClosed,
    "leaves": proclink.PeerLost,
    "is killed": proclink.PeerLost,
}
"""What one end does, and what the other has to hear."""


@pytest.fixture(params=BETWEEN_PROCESSES, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> TransportUnderTest:
    """The transports that reach another process."""
    assert isinstance(request.param, TransportUnderTest)
    return request.param


class Sender:
    """Sends until the peer is gone."""

    def __init__(self, send: Callable[[], object]) -> None:
        self.sent = 0
        self._send = send

    def __call__(self) -> None:
        while True:
            self._send()
            self.sent += 1


def sends(link: proclink.Link) -> Sender:
    """Small messages."""
    return Sender(lambda: link.send(bytes(100)))


def sends_huge(link: proclink.Link) -> Sender:
    """Messages that take many turns."""
    return Sender(lambda: link.send(NOISE))


def sends_many(link: proclink.Link) -> Sender:
    """Batches."""
    return Sender(lambda: link.send_many([bytes(100)] * 500))


def receives(link: proclink.Link) -> Callable[[], None]:
    """Whatever comes."""
    return lambda: again_and_again(link.recv)


Doing = Callable[[proclink.Link], Callable[[], None]]
DOING: dict[str, tuple[list[Doing], bool]] = {
    "sends": ([sends], False),
    "sends huge ones": ([sends_huge], False),
    "sends batches": ([sends_many], False),
    "receives": ([receives], False),
    "sends and receives": ([sends, receives], False),
    "sends huge ones and receives": ([sends_huge, receives], False),
    "sends after the end": ([sends], True),
    "receives after the end": ([receives], True),
}
"""What the other end is doing: at the same time, and whether only when the end is over."""


def heard(call: Callable[[], object]) -> type[BaseException]:
    """How a call ends that goes on until the peer is gone."""
    try:
        call()
    except proclink.Disconnected as error:
        if isinstance(error, proclink.PeerLost):
            return proclink.PeerLost
        return type(error)
    raise AssertionError("the call returned")


def one_ending(
    listener: proclink.Listener, child: Child, how: str, doing: str, turn: int, patience: float
) -> set[type[BaseException]]:
    """Lets the child end; everything that this end hears of it, again and again."""
    works, afterwards = DOING[doing]
    child.say([how, turn % 2 == 1, patience])
    with listener.accept(timeout=SOON) as link:
        pid = child.hear()

        def end() -> None:
            if how == "closes by signal":
                os.kill(pid, signal.SIGUSR1)
            else:
                child.say("end")

        if afterwards:
            end()
            child.hear()
        calls = [work(link) for work in works]
        running = [Background(lambda call=call: heard(call)) for call in calls]  # type: ignore[misc]
        if not afterwards:
            senders = [call for call in calls if isinstance(call, Sender)]
            if doing == "sends":
                wait_for(lambda: senders[0].sent >= turn * 7 % 40, "the messages")
            end()
        outcomes = {background.result() for background in running}
        if not afterwards:
            child.hear()
        for _ in range(2):
            outcomes.add(heard(lambda: again_and_again(lambda: link.send(b"x", timeout=0))))
            outcomes.add(heard(lambda: link.send_many([b"x"] * 3, timeout=SOON)))
            outcomes.add(heard(lambda: again_and_again(lambda: link.recv(timeout=SOON))))
        return outcomes


def cut_off(transport: TransportUnderTest, how: str, doing: str) -> bool:
    """Whether TCP may reset the connection under what was sent (RFC 2525, 2.17).

    It does where the one end has sent more than the other takes in, which in turn sends on and
    reads nothing.
    """
    return (
        transport.name == "tcp"
        and how in ("closes while it sends", "closes by signal")
        and "receives" not in doing
    )


@contextlib.contextmanager
def load(threads: int) -> Iterator[None]:
    """Threads that want the interpreter all the time."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    spinning = [threading.Thread(target=spin, daemon=True) for _ in range(threads)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as many changes of thread, in a tenth of the time
    for thread in spinning:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in spinning:
            thread.join()
        sys.setswitchinterval(before)


@pytest.mark.parametrize("busy", [0, 2], ids=["idle", "loaded"])
@pytest.mark.parametrize("how", ENDS)
def test_the_truth_of_an_ending(
    transport: TransportUnderTest, url: str, how: str, busy: int, rounds: Rounds
) -> None:
    with (
        proclink.listen(url, ring_size=64 * 1024) as listener,
        Child(roles.end_again_and_again, listener.address) as child,
        load(busy),
    ):
        for doing in DOING:
            either = cut_off(transport, how, doing)
            for turn in range(rounds.loaded if busy else rounds.idle):
                # Who looks only when the end is over must not be waited for.
                patience = BRIEF if either or DOING[doing][1] else SOON
                outcomes = one_ending(listener, child, how, doing, turn, patience)
                if either:
                    assert len(outcomes) == 1, (doing, turn, outcomes)
                else:
                    assert outcomes == {ENDS[how]}, (doing, turn, outcomes)
