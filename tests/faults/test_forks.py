"""Forks at any moment, hooks of others around them, and locks of others around a bind."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import proclink
from conformance.support import SOON, Background
from faults import forkers
from faults.children import Program

URLS = {"pipe": "pipe://forks", "shm": "shm://forks", "tcp": "tcp://127.0.0.1:0"}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The transports that reach another process."""
    return URLS[request.param]


@pytest.fixture(autouse=True)
def swept(nothing_left_behind: None) -> Iterator[None]:
    """Takes over the names of those that left without closing, and gives them back."""
    yield
    for name in ("forks", "child", "early", "slow"):
        for scheme in ("pipe", "shm"):
            proclink.bind(f"{scheme}://{name}").close()


def test_garbage_does_not_let_a_child_keep_links() -> None:
    with Program(forkers.fork_beside_garbage, "pipe://forks", 15) as child:
        assert child.hear() == [0]


@pytest.mark.parametrize("what", ["link", "view"])
def test_a_child_drops_what_another_thread_kept(url: str, what: str) -> None:
    with Program(forkers.fork_beside_thread_locals, url, what, 10) as child:
        assert child.hear() == [0]
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("what", ["bound", "connected", "listener"])
@pytest.mark.parametrize("scheme", ["memory", *URLS])
def test_a_child_comes_out_of_the_wait_in_which_it_was_forked(scheme: str, what: str) -> None:
    url = "memory://forks" if scheme == "memory" else URLS[scheme]
    with Program(forkers.fork_in_a_wait, what, url) as child:
        assert child.hear() == [0]


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="Python 3.13 ends a child that was not told before the fork"
)
def test_a_fork_of_an_embedders(url: str) -> None:
    with Program(forkers.fork_without_the_step_before, url) as child:
        assert child.hear() == 0
        assert child.wait() == 0, child.errors()


def test_hooks_that_run_first_may_close_and_open_links(url: str) -> None:
    with Program(forkers.reopen_in_hooks, url) as child:
        assert child.hear() == 0
        assert child.wait() == 0, child.errors()
        print(child.errors())


def test_what_others_start_blocks_no_signals() -> None:
    with Program(forkers.start_processes_anywhere) as child:
        blocked = child.hear()
        assert len(blocked) >= 3
        assert set(map(tuple, blocked)) == {()}


@pytest.mark.parametrize("scheme", ["memory", *URLS])
def test_a_bind_waits_for_no_lock_of_its_own_thread(scheme: str) -> None:
    url = "memory://locks" if scheme == "memory" else URLS[scheme]
    with Program(forkers.bind_under_locks, url, XDG_RUNTIME_DIR="") as child:
        assert child.hear() == "bound"
        assert child.wait() == 0, child.errors()


def test_nothing_is_imported_where_others_wait(url: str) -> None:
    url = url.replace("127.0.0.1", "localhost")
    with Program(forkers.note_imports, url) as child:
        assert child.hear() == []
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("thread", ["errands", "supervisor"])
def test_a_finalizer_that_closes_waits_for_nobody_where_others_wait(thread: str) -> None:
    with Program(forkers.close_in_a_finalizer, thread) as child:
        assert child.hear() == "bound"


def test_nothing_is_bound_when_the_interpreter_ends() -> None:
    with Program(forkers.bind_at_the_very_end) as child:
        assert "the interpreter is ending" in child.hear()
        assert child.wait() == 0, child.errors()


def test_a_slow_name_server_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **keywords: Any) -> Any:
        if host == "slow.invalid":
            asked.set()
            answer.wait(SOON)
            host = "127.0.0.1"
        return real(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    waiting = Background(lambda: proclink.bind("tcp://slow.invalid:0"))
    try:
        assert asked.wait(SOON)
        with proclink.bind("pipe://quick") as bound:
            proclink.connect(bound.address, timeout=SOON).close()
    finally:
        answer.set()
    waiting.result().close()


def test_a_timeout_passes_while_a_test_of_the_users_has_stopped_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 12345.0)
    for url in ("pipe://nobody", "memory://nobody", "tcp://127.0.0.1:1"):
        with pytest.raises(proclink.NoServer):
            proclink.connect(url, timeout=0.05)
    with proclink.listen("memory://frozen") as listener, pytest.raises(proclink.TimedOut):
        listener.accept(timeout=0.05)
