"""What the tests of both suites need around a link."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import proclink

SOON = 20.0
"""Seconds within which everything that has to happen does, however slow the machine."""

NOISE = random.Random(1).randbytes(8 * 1024 * 1024)

HUGE = NOISE * 6
"""More than any transport takes in without somebody who receives."""

Result = TypeVar("Result")


class LinkOptions(TypedDict, total=False):
    """Options of a connecting link."""

    max_message: int
    spin: Any
    handshake_timeout: float


class ServerOptions(LinkOptions, total=False):
    """Options of a bound link and of a listener."""

    ring_size: int


class Pair(NamedTuple):
    """Two ends of one link."""

    server: proclink.Link
    client: proclink.Link


class Flow(NamedTuple):
    """Two ends of one link, as one direction sees them."""

    sender: proclink.Link
    receiver: proclink.Link


class Background(Generic[Result]):
    """A function that runs in a thread of its own."""

    def __init__(self, work: Callable[[], Result], name: str | None = None) -> None:
        self._work = work
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def result(self) -> Result:
        """What the function returned; raises what it raised."""
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "the call is still waiting"
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or its traceback would keep the frames alive
        return self._result[0]

    def wait_until_blocked(self) -> None:
        """Waits until the thread sleeps in a call of proclink (there is no event to wait for)."""
        blocks(self._thread)


def blocks(thread: threading.Thread) -> None:
    """Waits until a thread sleeps in a call of proclink (there is no event to wait for)."""
    seen = 0
    end = time.monotonic() + SOON
    while seen < 4:
        assert time.monotonic() < end, "the thread does not block"
        assert thread.is_alive(), "the call did not wait"
        asleep = _state(thread) == "S" and _inside_proclink(thread)
        seen = seen + 1 if asleep else 0
        time.sleep(0.001)


def _state(thread: threading.Thread) -> str:
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0]
    return "gone"


def _inside_proclink(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if "/proclink/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def running(work: Callable[[], Result]) -> Iterator[Background[Result]]:
    """Runs a function beside the block, and takes its result at the end of it."""
    background = Background(work)
    yield background
    background.result()


def fill(link: proclink.Link, size: int = 4000) -> list[bytes]:
    """Sends until there is no more room; the messages that were sent."""
    sent: list[bytes] = []
    timeout = 0.0
    while True:
        message = len(sent).to_bytes(8, "little") + NOISE[: size - 8]
        try:
            link.send(message, timeout=timeout)
            sent.append(message)
        except proclink.TimedOut:
            if timeout:
                return sent
            timeout = 0.02  # what a network holds takes a moment to settle


def receive_until(link: proclink.Link, last: bytes) -> list[bytes]:
    """Receives up to a certain message; everything before it."""
    received: list[bytes] = []
    while (message := link.recv(timeout=SOON)) != last:
        received.append(message)
    return received


def again_and_again(call: Callable[[], object]) -> None:
    """Repeats a call until it raises."""
    while True:
        call()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that nothing tells of."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.001)
