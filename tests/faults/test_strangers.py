"""Ends that speak something else, another version, or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import proclink
from conformance.support import SOON, Background, wait_for
from conformance.transports import TRANSPORTS, TransportUnderTest
from faults.rogues import (
    introduction,
    raw_client,
    receive,
    rogue_server,
    welcome_with,
)
from proclink import _core, _handshake
from proclink._handshake import Answer, Kind
from proclink.transports import _connecting

RING = 64 * 1024


@pytest.fixture(params=["pipe", "shm", "tcp"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The schemes with a handshake."""
    return str(request.param)


@pytest.fixture
def transport(scheme: str) -> TransportUnderTest:
    """The transport of the scheme."""
    return next(transport for transport in TRANSPORTS if transport.name == scheme)


# --- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        bytes(64),
        b"\xff" * 64,
        introduction("pipe", Kind.HELLO),
        introduction("pipe", Kind.READY),
    ],
    ids=["http", "ssh", "zeros", "ones", "hello", "ready"],
)
def test_a_server_that_speaks_something_else(scheme: str, greeting: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(greeting)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass

    with rogue_server(scheme, serve) as url, pytest.raises(proclink.HandshakeFailed):
        proclink.connect(url, timeout=SOON)


@pytest.mark.parametrize("says", [b"", b"proclin", b"proclink"], ids=["nothing", "prefix", "magic"])
@pytest.mark.parametrize("hears", [0, 64], ids=["at once", "after the hello"])
def test_a_server_that_hangs_up(scheme: str, hears: int, says: bytes) -> None:
    """It may be ending, and another one about to start; or nobody comes."""

    def serve(sock: socket.socket) -> None:
        receive(sock, hears)
        sock.sendall(says)

    with (
        rogue_server(scheme, serve) as url,
        pytest.raises(proclink.NoServer, match="it hung up during the handshake"),
    ):
        proclink.connect(url, timeout=0.1)


@pytest.mark.parametrize("hears", [0, 64, 65], ids=["hangs up", "hears", "says nothing"])
def test_a_server_that_answers_later(scheme: str, hears: int) -> None:
    """The first two who come get no answer, as from one that restarts, or is busy."""
    turns = iter(range(100))
    welcome = welcome_with(
        scheme,
        lambda: [_sealed(), *_doorbells()] if scheme == "shm" else [],
        ring_size=RING if scheme == "shm" else 0,
    )

    def serve(sock: socket.socket) -> None:
        if next(turns) < 2:
            receive(sock, hears)
        else:
            welcome(sock)

    with rogue_server(scheme, serve) as url:
        proclink.connect(url, timeout=SOON, handshake_timeout=0.05).close()
        assert next(turns) == 3


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is there gets hardly more time to answer than the caller's timeout."""
    monkeypatch.setattr(_connecting, "_SHORTEST_HANDSHAKE", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_server_that_says_nothing(scheme: str, timeout: float) -> None:
    with (
        rogue_server(scheme, lambda sock: receive(sock, 65)) as url,
        pytest.raises(proclink.NoServer, match="did not answer in time"),
    ):
        proclink.connect(url, timeout=timeout, handshake_timeout=0.05)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_drips(scheme: str) -> None:
    """The handshake has one time limit, and not one a byte."""
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        for byte in introduction(scheme, Kind.WELCOME)[:40]:
            sock.sendall(bytes([byte]))
            if over.wait(0.02):
                return

    with rogue_server(scheme, serve) as url:
        with pytest.raises(proclink.NoServer):
            proclink.connect(url, timeout=0.2)
        over.set()


def test_a_server_that_welcomes_and_hangs_up(scheme: str) -> None:
    """Whatever comes of it, it is an error of proclink or a link that is disconnected."""

    def serve(sock: socket.socket) -> None:
        receive(sock, 64)
        sock.sendall(introduction(scheme, Kind.WELCOME))

    with rogue_server(scheme, serve) as url:
        for _ in range(20):
            with (
                contextlib.suppress(proclink.HandshakeFailed, proclink.NoServer),
                proclink.connect(url, timeout=0.01) as link,
                pytest.raises(proclink.Disconnected),
            ):
                link.recv(timeout=SOON)


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_a_server_of_another_version(scheme: str, version: int) -> None:
    with (
        rogue_server(scheme, welcome_with(scheme, version=version)) as url,
        pytest.raises(proclink.VersionMismatch) as caught,
    ):
        proclink.connect(url, timeout=SOON)
    assert (caught.value.ours, caught.value.theirs) == (_handshake.VERSION, version)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer.BUSY, proclink.Busy),
        (Answer.NOT_ALLOWED, proclink.PeerRefused),
        (Answer.OTHER_TRANSPORT, proclink.HandshakeFailed),
        (Answer.OTHER_VERSION, proclink.VersionMismatch),
        (Answer.NO_MEMORY, proclink.ConnectionFailed),
    ],
)
def test_a_refusal(scheme: str, answer: Answer, error: type[Exception]) -> None:
    with rogue_server(scheme, welcome_with(scheme, answer=answer)) as url, pytest.raises(error):
        proclink.connect(url, timeout=SOON)


# --- descriptors ----------------------------------------------------------------------------------


def _doorbells(count: int = 4) -> list[int]:
    return [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]


def _sealed(ring: int = RING) -> int:
    made = _core.Descriptors()
    _core.create_segment(ring, made)
    return os.dup(made.handles[0])


def _memfd(size: int) -> int:
    descriptor = os.memfd_create("rogue", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


def _sparse() -> int:
    descriptor = _memfd(2 * (os.sysconf("SC_PAGESIZE") + RING))
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return descriptor


def _null() -> int:
    return os.open("/dev/null", os.O_RDWR)


def _pipe_end() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


WRONG: dict[str, Callable[[], list[int]]] = {
    "none": list,
    "memory only": lambda: [_sealed()],
    "one too few": lambda: [_sealed(), *_doorbells(3)],
    "one too many": lambda: [_sealed(), *_doorbells(5)],
    "far too many": lambda: [_sealed(), *_doorbells(50)],
    "not memory": lambda: [_null(), *_doorbells()],
    "a doorbell for memory": lambda: _doorbells(5),
    "unsealed": lambda: [_memfd(2 * (os.sysconf("SC_PAGESIZE") + RING)), *_doorbells()],
    "unsealed and short": lambda: [_memfd(10), *_doorbells()],
    "sparse": lambda: [_sparse(), *_doorbells()],
    "a larger ring": lambda: [_sealed(2 * RING), *_doorbells()],
    "files for doorbells": lambda: [_sealed(), *(_null() for _ in range(4))],
    "pipes for doorbells": lambda: [_sealed(), *(_pipe_end() for _ in range(4))],
    "memory for doorbells": lambda: [_sealed() for _ in range(5)],
}


@pytest.mark.parametrize("descriptors", WRONG.values(), ids=WRONG)
def test_wrong_descriptors(descriptors: Callable[[], list[int]]) -> None:
    with rogue_server("shm", welcome_with("shm", descriptors, ring_size=RING)) as url:
        for _ in range(3):
            with pytest.raises(proclink.HandshakeFailed):
                proclink.connect(url, timeout=SOON).close()


@pytest.mark.parametrize("ring_size", [0, 1, RING - 1, RING * 2, 2**63, 2**64 - 1])
def test_a_wrong_ring_size(ring_size: int) -> None:
    serve = welcome_with("shm", lambda: [_sealed(), *_doorbells()], ring_size=ring_size)
    with rogue_server("shm", serve) as url, pytest.raises(proclink.HandshakeFailed):
        proclink.connect(url, timeout=SOON)


def test_rings_larger_than_the_client_adopts() -> None:
    with proclink.listen("shm://large", ring_size=4 * RING) as listener:
        for most in (RING, 4 * RING - 1):
            with pytest.raises(proclink.HandshakeFailed, match="max_ring_size"):
                proclink.connect(listener.address, timeout=SOON, max_ring_size=most)
        proclink.connect(listener.address, timeout=SOON, max_ring_size=4 * RING).close()


def test_the_largest_rings_are_not_adopted_unasked() -> None:
    serve = welcome_with("shm", lambda: [_sealed(), *_doorbells()], ring_size=_core.LARGEST_RING)
    with (
        rogue_server("shm", serve) as url,
        pytest.raises(proclink.HandshakeFailed, match="max_ring_size"),
    ):
        proclink.connect(url, timeout=SOON)


def test_descriptors_with_a_refusal_are_not_kept() -> None:
    serve = welcome_with("shm", lambda: [_sealed(), *_doorbells()], answer=Answer.BUSY)
    with rogue_server("shm", serve) as url:
        for _ in range(5):
            with pytest.raises(proclink.Busy):
                proclink.connect(url, timeout=SOON)


def test_descriptors_on_a_pipe_are_not_kept() -> None:
    serve = welcome_with("pipe", lambda: [_null() for _ in range(5)])
    with rogue_server("pipe", serve) as url:
        before = len(os.listdir("/proc/self/fd"))
        with contextlib.suppress(proclink.HandshakeFailed):
            proclink.connect(url, timeout=SOON).close()
        # One more may be the end of the rogue server, which lives in this process; it closes its
        # own copies when it has sent them, as nothing tells.
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before + 1, "what was received closed")


# --- clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["pipe://next", "tcp://127.0.0.1:0"], ids=["pipe", "tcp"])
def test_who_comes_while_another_is_let_in_waits_for_the_decision(url: str) -> None:
    """The place that the other has reserved is free again when that one fails."""
    scheme = url.partition(":")[0]
    with proclink.bind(url) as server, raw_client(server.address) as first:
        first.sendall(introduction(scheme, Kind.HELLO))
        receive(first, _handshake.SIZE)
        coming = Background(lambda: proclink.connect(server.address, timeout=SOON))
        coming.wait_until_blocked()
        first.close()
        with coming.result() as link:
            link.send(b"second", timeout=SOON)
            assert server.recv(timeout=SOON) == b"second"


STRANGE: dict[str, bytes] = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "zeros": bytes(64),
    "a part": b"proclink\x01",
    "a welcome": introduction("pipe", Kind.WELCOME),
    "magic only": b"proclink" + bytes(range(100, 156)),
}


@pytest.mark.parametrize("says", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("how", ["bind", "listen"])
def test_a_strange_client_disturbs_nobody(url: str, how: str, says: bytes) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(getattr(proclink, how)(url))
        strangers = [stack.enter_context(raw_client(server.address)) for _ in range(10)]
        for stranger in strangers:
            stranger.sendall(says)
        client = stack.enter_context(proclink.connect(server.address, timeout=SOON))
        client.send(b"good")
        link = server if how == "bind" else stack.enter_context(server.accept(timeout=SOON))
        assert link.recv(timeout=SOON) == b"good"
        more = stack.enter_context(raw_client(server.address))
        more.sendall(says)
        link.send(b"answer", timeout=SOON)
        assert client.recv(timeout=SOON) == b"answer"


def test_a_mute_client_is_sent_away(scheme: str, url: str) -> None:
    with proclink.listen(url, handshake_timeout=0.05) as listener:
        for says in (b"", b"procl", introduction(scheme, Kind.HELLO)):
            with (
                raw_client(listener.address) as stranger,
                contextlib.suppress(ConnectionResetError, BrokenPipeError),
            ):
                stranger.sendall(says)
                while stranger.recv(4096):
                    pass


def test_a_client_that_never_says_ready_gives_its_place_back(scheme: str, url: str) -> None:
    """On a loaded machine the limit may pass before it should, and so everything is repeated."""
    with proclink.bind(url, handshake_timeout=0.3) as server:

        def sent_away() -> bool:
            with (
                raw_client(server.address) as stranger,
                contextlib.suppress(ConnectionResetError, BrokenPipeError),
            ):
                stranger.sendall(introduction(scheme, Kind.HELLO))
                welcome = receive(stranger, 64)
                assert receive(stranger, 1) == b""
                return len(welcome) == 64
            return False

        def exchanged() -> bool:
            with (
                contextlib.suppress(proclink.HandshakeFailed, proclink.NoServer),
                contextlib.suppress(proclink.Disconnected),
                proclink.connect(server.address, timeout=SOON) as client,
            ):
                wait_for(
                    lambda: (
                        server.state is proclink.State.CONNECTED
                        or client.state is proclink.State.DISCONNECTED
                    ),
                    "the next one, or its end",
                )
                client.send(b"next", timeout=SOON)
                return server.recv(timeout=SOON) == b"next"
            return False

        wait_for(sent_away, "a stranger who is welcomed and then sent away")
        wait_for(exchanged, "the next one")


def test_a_client_that_says_something_else_than_ready(scheme: str, url: str) -> None:
    with proclink.bind(url) as server:
        with raw_client(server.address) as stranger:
            stranger.sendall(introduction(scheme, Kind.HELLO))
            assert len(receive(stranger, 64)) == 64
            stranger.sendall(introduction(scheme, Kind.HELLO))
            with contextlib.suppress(ConnectionResetError):
                receive(stranger, 1)
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"next")
            assert server.recv(timeout=SOON) == b"next"


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_a_client_of_another_version(scheme: str, url: str, version: int) -> None:
    with proclink.bind(url) as server:
        with raw_client(server.address) as stranger:
            stranger.sendall(introduction(scheme, Kind.HELLO, version=version))
            answer = _handshake.unpack(receive(stranger, 64), Kind.WELCOME)
            assert answer.answer is Answer.OTHER_VERSION
            assert receive(stranger, 1) == b""
        proclink.connect(server.address, timeout=SOON).close()


def test_a_client_of_another_transport(scheme: str, url: str) -> None:
    with proclink.bind(url) as server:
        for number in (0, 1, 2, 3, 255):
            if number == {"pipe": 1, "shm": 2, "tcp": 3}[scheme]:
                continue
            with raw_client(server.address) as stranger:
                stranger.sendall(introduction(scheme, Kind.HELLO, transport=number))
                answer = _handshake.unpack(receive(stranger, 64), Kind.WELCOME)
                assert answer.answer is Answer.OTHER_TRANSPORT
        proclink.connect(server.address, timeout=SOON).close()


def test_a_client_that_leaves_during_its_introduction(scheme: str, url: str) -> None:
    with proclink.bind(url) as server:
        for length in (0, 1, 8, 63, 64):
            with raw_client(server.address) as stranger:
                stranger.sendall(introduction(scheme, Kind.HELLO)[:length])
        # The place of the last one is given back as soon as its end is seen.
        link: list[proclink.Link] = []

        def connected() -> bool:
            with contextlib.suppress(proclink.Busy):
                link.append(proclink.connect(server.address, timeout=SOON))
            return bool(link)

        wait_for(connected, "a place")
        with link.pop() as client:
            client.send(b"next")
            assert server.recv(timeout=SOON) == b"next"


def test_closing_sends_newcomers_away(scheme: str, url: str) -> None:
    with contextlib.ExitStack() as stack:
        with proclink.listen(url) as listener:
            strangers = [stack.enter_context(raw_client(listener.address)) for _ in range(3)]
            strangers[0].sendall(introduction(scheme, Kind.HELLO))
            assert len(receive(strangers[0], 64)) == 64
        for stranger in strangers:
            with contextlib.suppress(ConnectionResetError):
                assert receive(stranger, 1) == b""


@pytest.mark.usefixtures("impatient")
def test_a_server_that_closes_while_somebody_connects(scheme: str, place: Path, url: str) -> None:
    """Either there is a link, or an error of proclink tells that there is none."""
    for _ in range(30):
        server = proclink.listen(url)
        address = server.address

        def connect(address: str = address) -> None:
            with contextlib.suppress(proclink.ConnectionFailed, proclink.NoServer):
                proclink.connect(address, timeout=0.05).close()

        connecting = [Background(connect) for _ in range(2)]
        server.close()
        for one in connecting:
            one.result()
