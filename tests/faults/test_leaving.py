"""The end of a process, forgotten links, log handlers that send, and forks."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

import proclink
from conformance.support import SOON, wait_for
from faults import leavers
from faults.children import Child, Program
from proclink._address import parse
from proclink.transports._unix import path_of

URLS = {"pipe": "pipe://leaving", "shm": "shm://leaving", "tcp": "tcp://127.0.0.1:0"}
ALL_URLS = URLS | {"memory": "memory://leaving"}


@pytest.fixture(params=ALL_URLS)
def url(request: pytest.FixtureRequest) -> str:
    """Every transport."""
    return ALL_URLS[request.param]


@pytest.fixture(autouse=True)
def swept(nothing_left_behind: None) -> Iterator[None]:
    """Takes over the names of those that left without closing, and gives them back."""
    yield
    for name in ALL_URLS.values():
        proclink.bind(name).close()


def _left(child: Child) -> None:
    assert child.hear() == "leaving"
    start = time.monotonic()
    assert child.wait() == 0, child.errors()
    print(f"ended after {(time.monotonic() - start) * 1000:.0f} ms")
    assert child.errors() == ""


@pytest.mark.parametrize("how", [leavers.close_last, leavers.close_with_logging])
def test_a_link_may_be_closed_at_the_very_end(url: str, how: object) -> None:
    with Program(how, url) as child:  # type: ignore[arg-type]
        _left(child)
        assert child.hear() == "closed"


@pytest.mark.parametrize(
    "how",
    [
        leavers.close_nothing,
        leavers.close_in_a_finalizer,
        leavers.leave_in_full_swing,
    ],
)
def test_a_process_ends_whatever_its_threads_do(url: str, how: object) -> None:
    with Program(how, url) as child:  # type: ignore[arg-type]
        _left(child)


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_process_ends_in_code_of_the_callers(url: str) -> None:
    with Program(leavers.leave_in_code_of_the_callers, url) as child:
        _left(child)


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_links_work_while_multiprocessing_ends(url: str) -> None:
    with Program(leavers.serve_a_child_to_its_end, url) as child:
        _left(child)
        assert child.hear() == "closed"


@pytest.mark.parametrize("kind", ["bound", "listener", "connected"])
def test_what_is_forgotten_stops_nobody(url: str, kind: str) -> None:
    with Program(leavers.forget, kind, url) as child:
        assert child.hear() == "accepted"
        assert child.hear() == "bound"
        warned = child.hear()
        assert len(warned) == 1
        assert "unclosed" in warned[0]
        child.wait()


def test_a_log_handler_may_send_over_a_link(url: str) -> None:
    with Program(leavers.ship_logs, url) as child:
        assert child.hear() == "worked"
        assert child.hear() == "closed"
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("url", [URLS["pipe"], URLS["shm"]], ids=["pipe", "shm"])
def test_a_forked_child_keeps_no_newcomer(url: str) -> None:
    path = path_of(parse(url))
    with (
        Program(leavers.fork_during_a_handshake, url) as child,
        socket.socket(socket.AF_UNIX) as newcomer,
    ):
        wait_for(lambda: newcomer.connect_ex(str(path)) == 0, "a listener")
        ending = os.pidfd_open(child.hear())
        try:
            child.kill()
            newcomer.settimeout(SOON)
            assert newcomer.recv(1) == b""
        finally:
            signal.pidfd_send_signal(ending, signal.SIGKILL)
            select.select([ending], [], [], SOON)  # until it is gone, with all it had
            os.close(ending)


def test_a_forked_child_starts_without_names_in_memory() -> None:
    with Program(leavers.fork_with_names_in_memory) as child:
        assert child.hear() == "own"
        assert child.hear() == "closed"
