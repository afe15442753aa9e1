"""Signals, forks and threads at awkward moments leave nothing locked, held or handed down."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import proclink
from conformance.support import SOON
from faults import moments
from faults.children import Program
from faults.rogues import introduction, raw_client
from proclink._aside import errands
from proclink._handshake import Kind
from proclink._supervisor import supervisor

URLS = {"pipe": "pipe://moment", "shm": "shm://moment", "tcp": "tcp://127.0.0.1:0"}
ATTEMPTS = 200


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The transports that reach another process."""
    return URLS[request.param]


@pytest.mark.parametrize("kind", ["bind", "listen"])
def test_an_interrupted_close_frees_the_name(url: str, kind: str) -> None:
    with Program(moments.close_and_be_interrupted, kind, url, ATTEMPTS) as child:
        interrupted, stuck = child.hear()
        print(f"interrupted {interrupted} times")
        assert interrupted > 0
        assert stuck == 0


def test_an_interrupted_connect_in_memory_gives_its_place_back() -> None:
    with Program(moments.connect_in_memory_and_be_interrupted, ATTEMPTS) as child:
        interrupted, stuck = child.hear()
        print(f"interrupted {interrupted} times")
        assert interrupted > 0
        assert stuck == 0


def test_a_signal_to_a_forked_child_lets_it_keep_nothing(url: str) -> None:
    with Program(moments.fork_beside_signals, url, 200, 30) as child:
        assert child.hear() == 0
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("after", [0.001, 0.003, 0.006])
def test_a_fork_at_the_first_use_of_a_scheme(url: str, after: float) -> None:
    other = url if "tcp" in url else f"{url}-2"
    with Program(moments.fork_at_first_use, url, other, after) as child:
        assert child.hear() == "listened"
        child.say()
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("scheme", URLS)
def test_first_binds_at_once_start_one_thread_of_each(scheme: str) -> None:
    with Program(moments.bind_from_threads, scheme, 4) as child:
        assert child.hear() == ["proclink-accept", "proclink-errand", "proclink-report"]
        assert child.wait() == 0, child.errors()


def test_a_signal_that_the_program_blocks_waits_for_it(url: str) -> None:
    with Program(moments.poll_for_a_blocked_signal, url) as child:
        assert child.hear() == "blocked"
        child.process.send_signal(signal.SIGTERM)
        assert child.hear() == signal.SIGTERM
        assert child.wait() == 0, child.errors()


def test_a_thread_of_the_librarys_takes_its_own_faults_only() -> None:
    def blocked() -> set[int]:
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    for mask in (errands.call(blocked), supervisor().run(_called(blocked))):
        assert {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1} <= mask
        assert {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT} & mask == set()


async def _called(call: Callable[[], set[int]]) -> set[int]:
    return call()


def test_a_policy_for_other_loops_stops_no_bind(url: str) -> None:
    with Program(moments.bind_beside_a_policy, url) as child:
        assert child.hear() == "bound"
        assert child.wait() == 0, child.errors()


def test_a_child_forked_in_an_errand_is_told() -> None:
    with Program(moments.fork_in_an_errand) as child:
        assert {child.hear(), child.hear()} == {"told", "done"}
        child.say()
        assert child.wait() == 0, child.errors()


@pytest.mark.parametrize("scheme", URLS)
def test_a_client_that_leaves_ends_no_server_by_sigpipe(scheme: str) -> None:
    with Program(moments.serve_with_sigpipe, URLS[scheme]) as child:
        address = child.hear()
        for _ in range(20):
            with raw_client(address) as sock:
                sock.sendall(introduction(scheme, Kind.HELLO))
        with proclink.connect(address, timeout=SOON) as link:
            link.send(b"served", timeout=SOON)
            assert child.hear() == "served"
        assert child.wait() == 0, child.errors()


def test_a_sender_does_not_wait_for_a_handler_that_waits_for_it(url: str) -> None:
    """The peer is gone; how it went stands where another thread's call was interrupted."""
    with (
        proclink.bind(url) as server,
        proclink.connect(server.address, timeout=SOON) as link,
    ):
        link.send(b"first", timeout=SOON)
        server.recv(timeout=SOON)
        heard: list[BaseException] = []

        def send() -> None:
            with contextlib.suppress(proclink.LinkClosed):
                try:
                    while True:
                        link.send(bytes(100), timeout=SOON)
                except proclink.Disconnected as error:
                    heard.append(error)

        sender = threading.Thread(target=send)

        def end(*_: object) -> None:
            server.close()
            sender.start()
            sender.join(SOON)
            assert not sender.is_alive()

        before = signal.signal(signal.SIGUSR1, end)
        main = threading.get_ident()
        kill = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        kill.start()
        try:
            with pytest.raises(proclink.Disconnected):
                link.recv(timeout=SOON)
        finally:
            kill.join()
            signal.signal(signal.SIGUSR1, before)
        assert len(heard) == 1


def test_what_a_killed_bind_left_is_in_nobodys_way(place: Path) -> None:
    """The short name of a long path, by numbers that come again in a container."""
    directory = place / ("long" * 30)
    directory.mkdir(mode=0o700)
    short = f".{os.getpid()}-{errands.call(threading.get_native_id)}"
    with socket.socket(socket.AF_UNIX) as left:
        handle = os.open(directory, os.O_PATH)
        left.bind(f"/proc/self/fd/{handle}/{short}")
        os.close(handle)
    with proclink.bind(f"pipe://{directory}/name"):
        pass
    assert list(directory.iterdir()) == []


def test_no_descriptor_is_closed_by_its_number() -> None:
    """A fork may come between that and the note of it, and the child close it again."""
    package = Path(proclink.__file__).parent
    library = [path for path in package.rglob("*.py") if "cli" not in path.parts]
    sources = {path: path.read_text() for path in library}
    assert len(sources) > 20
    assert [path for path, text in sources.items() if "os.close(" in text] == []


def test_a_subinterpreter_is_told() -> None:
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import proclink
one = interpreters.create(LEGACY)
text = '''
try:
    import proclink
except ImportError as error:
    while error.__cause__ is not None:
        error = error.__cause__
    print(error)
'''
print(interpreters.run_string(one, text) or "", end="")
interpreters.destroy(one)
with proclink.bind("pipe://main"):
    print("bound")
"""
    # One that shares the GIL; one with its own refuses the module by itself.
    arguments = {(3, 11): "", (3, 12): "isolated=False"}.get(sys.version_info[:2], "'legacy'")
    code = code.replace("LEGACY", arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SOON, check=False
    )
    expected = "proclink works in the main interpreter only\nbound\n"
    assert (done.stdout, done.stderr) == (expected, "")
