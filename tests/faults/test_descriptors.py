"""No descriptor is left behind or handed down, whatever comes in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

import proclink
from conformance.support import SOON, running, wait_for
from faults import descriptors
from faults.children import Program

URLS = {"pipe": "pipe://counted", "shm": "shm://counted", "tcp": "tcp://127.0.0.1:0"}
ATTEMPTS = 600
FORKS = 200
BINDS = 200


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The transports that reach another process."""
    return URLS[request.param]


@contextlib.contextmanager
def a_server(url: str) -> Iterator[str]:
    """The address of one that lets everybody in and goes."""
    with proclink.listen(url) as listener:

        def serve() -> None:
            with contextlib.suppress(proclink.LinkClosed):
                for link in listener:
                    link.close()

        with running(serve):
            yield listener.address
            listener.close()


def test_an_interrupted_connect_leaves_no_descriptor(url: str) -> None:
    with (
        a_server(url) as address,
        Program(descriptors.connect_and_be_interrupted, address, ATTEMPTS) as child,
    ):
        before, interrupted = child.hear()
        print(f"interrupted {interrupted} times")
        assert interrupted > 0

        def left() -> int:
            child.say()
            return len(child.hear())

        # What is closed by another thread of the process is closed soon.
        wait_for(lambda: left() <= before, f"no more than the {before} descriptors of before")


def test_a_fork_beside_a_connect_hands_nothing_down(url: str) -> None:
    with (
        a_server(url) as address,
        Program(descriptors.fork_beside_connects, address, FORKS) as child,
    ):
        assert child.hear() == {}


@pytest.mark.parametrize("scheme", ["pipe", "shm", "tcp"])
def test_a_handler_that_interrupts_a_connect_may_bind(scheme: str) -> None:
    first, second = (
        "tcp://127.0.0.1:0" if scheme == "tcp" else f"{scheme}://{name}" for name in ("one", "two")
    )
    with (
        a_server(first) as address,
        Program(descriptors.bind_in_a_handler, address, second, BINDS) as child,
    ):
        assert child.hear() == "done"


def test_nothing_is_inherited(url: str) -> None:
    before = dict(descriptors.open_descriptors())
    with (
        proclink.bind(url) as bound,
        proclink.connect(bound.address, timeout=SOON) as link,
        proclink.listen("pipe://also") as listener,
        proclink.connect("pipe://also", timeout=SOON) as client,
        listener.accept(timeout=SOON) as accepted,
    ):
        for one, other in ((bound, link), (client, accepted)):
            other.send(b"x", timeout=SOON)
            one.recv(timeout=SOON)
        new = dict(descriptors.open_descriptors()).items() - before.items()
        assert len(new) > 0
        assert [kind for fd, kind in new if os.get_inheritable(fd)] == []
