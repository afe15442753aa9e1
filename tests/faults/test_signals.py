"""Ctrl-C ends every call that waits, and leaves the link as it was."""

from __future__ import annotations

import time

import pytest

import proclink
from conformance.support import SOON, Background
from faults import roles
from faults.children import Child

URLS = {"pipe": "pipe://keys", "shm": "shm://keys", "tcp": "tcp://127.0.0.1:0"}
ROUNDS = 2


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The transports that reach another process."""
    return URLS[request.param]


def interrupt(child: Child, rounds: int = ROUNDS) -> None:
    """Presses Ctrl-C in every round, when the child waits."""
    for _ in range(rounds):
        assert child.hear() == "blocking"
        child.wait_until_blocked()
        start = time.monotonic()
        child.interrupt()
        assert child.hear() == "interrupted"
        print(f"ended after {(time.monotonic() - start) * 1000:.1f} ms")


@pytest.mark.parametrize("spin", ["auto", 0])
@pytest.mark.parametrize("call", ["recv", "send", "huge send", "send_many"])
def test_a_waiting_call_is_interrupted(url: str, call: str, spin: object) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.interrupted, listener.address, call, spin, ROUNDS) as child,
        listener.accept(timeout=SOON) as link,
    ):
        assert child.hear() == "connected"
        interrupt(child)
        _used_again(child, link)


@pytest.mark.parametrize("spin", ["auto", 0])
def test_accept_is_interrupted(url: str, spin: object) -> None:
    with Child(roles.interrupted, url, "accept", spin, ROUNDS) as child:
        address = child.hear()
        interrupt(child)
        with proclink.connect(address, timeout=SOON) as link:
            _used_again(child, link)


@pytest.mark.parametrize("spin", ["auto", 0])
def test_connect_is_interrupted(url: str, spin: object) -> None:
    with proclink.listen(url) as reserved:
        address = reserved.address
    with Child(roles.interrupted, address, "connect", spin, ROUNDS) as child:
        interrupt(child)
        with proclink.listen(address) as listener, listener.accept(timeout=SOON) as link:
            _used_again(child, link)


def _used_again(child: Child, link: proclink.Link) -> None:
    def receive() -> None:
        while (message := link.recv(timeout=SOON)) != b"after":
            assert message == bytes(4000), "a message that was interrupted has arrived"

    receiving = Background(receive)
    assert child.hear() == "used again"
    receiving.result()
    link.send(b"answer", timeout=SOON)
    assert child.hear() == "answer"
    assert child.wait() == 0
