"""Forked children, other users, and the end of the interpreter."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import proclink
from conformance.support import SOON, Background
from faults import roles
from faults.children import Child, Program
from faults.rogues import introduction
from proclink import _handshake
from proclink._handshake import Answer, Kind

URLS = {"pipe": "pipe://family", "shm": "shm://family", "tcp": "tcp://127.0.0.1:0"}
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The transports that reach another process."""
    return URLS[request.param]


# --- fork -----------------------------------------------------------------------------------------


def test_a_forked_child_cannot_use_a_link(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.fork_with_a_link, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        assert child.hear() == ["ForkedLink"] * 7
        assert link.recv(timeout=SOON) == b"from the parent"
        link.send(b"answer", timeout=SOON)
        assert child.hear() == "answer"
        with pytest.raises(proclink.PeerClosed):
            link.recv(timeout=SOON)
        assert child.wait() == 0


def test_a_child_forked_beside_busy_threads_is_told_at_once(url: str) -> None:
    forks = 100
    with (
        proclink.listen(url) as listener,
        Child(roles.fork_beside_senders, listener.address, forks) as child,
        listener.accept(timeout=SOON) as link,
    ):
        taking = Background(lambda: sum(1 for _ in link))
        assert child.hear() == [0] * forks
        assert taking.result() > 0
        assert child.wait() == 0


def test_a_forked_child_cannot_use_a_link_in_memory() -> None:
    with Child(roles.fork_in_memory, "memory://family") as child:
        assert child.hear() == ["ForkedLink"] * 2
        assert child.hear() == "unharmed"
        assert child.wait() == 0


@pytest.mark.parametrize("how", ["bind", "listen"])
def test_a_forked_child_holds_no_address(url: str, how: str) -> None:
    with Child(roles.fork_with_a_server, url, how) as child:
        address = child.hear()
        assert child.hear() == "ForkedLink"
        assert child.hear()[0] == "child"
        with proclink.connect(address, timeout=SOON) as link:  # the child closed nothing
            assert link.state is proclink.State.CONNECTED
        child.kill()
        with proclink.bind(address) as server:  # though the forked child lives
            assert server.address == address


def test_a_forked_child_does_not_hide_its_parents_death(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.fork_and_wait, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        assert link.recv(timeout=SOON) == b"hello"
        forked = child.hear()
        waiting = Background(link.recv)
        waiting.wait_until_blocked()
        child.kill()
        with pytest.raises(proclink.PeerLost):
            waiting.result()
        os.kill(forked, 0)  # it lives, and ends with the pipe to its standard input


@pytest.mark.parametrize("what", ["view", "loan to discard", "loan to send"])
def test_a_forked_child_leaves_a_block_in_place(url: str, what: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.fork_holding, listener.address, what) as child,
        listener.accept(timeout=SOON) as link,
    ):
        if what == "view":
            link.send(b"12345678", timeout=SOON)
        assert child.hear() == 0
        if what != "view":
            assert link.recv(timeout=SOON) == b"12345678"
        assert link.recv(timeout=SOON) == b"unharmed"
        assert child.wait() == 0


def test_a_forked_childs_own_memory_is_its_own(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.fork_and_forget_the_link, listener.address) as child,
        listener.accept(timeout=SOON),
    ):
        assert child.hear() == 0
        assert child.wait() == 0


# --- users ----------------------------------------------------------------------------------------


@pytest.fixture
def public(place: Path) -> Path:
    """A directory that everybody may use."""
    place.chmod(0o755)
    directory = place / "public"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@AS_ROOT
@pytest.mark.parametrize("everybody", [False, True], ids=["private", "public"])
def test_another_user_cannot_connect(public: Path, everybody: bool) -> None:
    path = public / "socket"
    with proclink.listen(f"pipe://{path}") as listener:
        if everybody:
            path.chmod(0o777)
        with Child(roles.connect_as, NOBODY, f"pipe://{path}") as child:
            assert child.hear() == "PeerRefused"
        with pytest.raises(proclink.TimedOut):
            listener.accept(timeout=0)
        with proclink.connect(f"pipe://{path}", timeout=SOON) as client:
            client.send(b"the same user")
            with listener.accept(timeout=SOON) as link:
                assert link.recv(timeout=SOON) == b"the same user"


@AS_ROOT
def test_another_user_who_does_not_look_is_refused(public: Path) -> None:
    path = public / "socket"
    hello = introduction("pipe", Kind.HELLO).hex()
    with proclink.bind(f"pipe://{path}") as server:
        path.chmod(0o777)
        with Child(roles.introduce_as, NOBODY, str(path), hello) as child:
            answer = _handshake.unpack(bytes.fromhex(child.hear()), Kind.WELCOME)
            assert answer.answer is Answer.NOT_ALLOWED
        assert server.state is proclink.State.CONNECTING


@AS_ROOT
def test_a_server_of_another_user_is_not_trusted(public: Path) -> None:
    path = public / "socket"
    with Child(roles.serve_as, NOBODY, f"pipe://{path}") as child:
        child.hear()
        with pytest.raises(proclink.PeerRefused, match=str(NOBODY)):
            proclink.connect(f"pipe://{path}", timeout=SOON)
        for take in (proclink.bind, proclink.listen):
            with pytest.raises(proclink.AddressBlocked):
                take(f"pipe://{path}")
        child.say()
        assert child.wait() == 0


@AS_ROOT
def test_a_user_without_a_name(public: Path) -> None:
    with Child(roles.serve_as_nobody_known, 54321, f"pipe://{public}/socket") as child:
        assert child.hear() == f"pipe://{public}/socket"
        assert child.wait() == 0


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["closed", "open", "waiting thread", "busy threads", "listener"])
@pytest.mark.parametrize("url", ["memory://end", "pipe://end", "shm://end", "tcp://127.0.0.1:0"])
def test_the_interpreter_ends(url: str, what: str, place: Path) -> None:
    if what == "listener" and url.startswith("tcp"):
        what = "open"
    with Program(roles.end_with, what, url) as child:
        assert child.hear() == "ending"
        code, errors = child.wait(), child.errors()
    names = place / "run" / "proclink"
    for path in names.iterdir() if names.is_dir() else ():
        path.unlink()  # what an owner leaves that never closed; the next owner clears it away
    assert (code, errors) == (0, "")


def test_a_process_that_is_terminated_leaves_no_live_name(url: str) -> None:
    with Program(roles.serve, url) as child:
        address = child.hear()
        child.process.send_signal(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    with proclink.bind(address) as server:
        assert server.address == address
