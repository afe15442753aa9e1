"""A peer that shakes hands correctly and then breaks the protocol."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

import pytest

import proclink
from conformance.support import SOON, Background, again_and_again, running, wait_for
from faults.rogues import (
    MAX_MESSAGE,
    frame,
    introduced_client,
    introduction,
    receive,
    rogue_server,
)
from proclink._handshake import Kind

GOODBYE = frame(b"", kind=2)
TOO_LONG = (1 << 56) - 1


@pytest.fixture(params=["pipe", "tcp"])
def url(request: pytest.FixtureRequest) -> str:
    """The transports whose frames go over a socket."""
    return {"pipe": "pipe://frames", "tcp": "tcp://127.0.0.1:0"}[request.param]


@pytest.fixture
def listener(url: str) -> Iterator[proclink.Listener]:
    """Accepts the rogue, and a good client beside it."""
    with proclink.listen(url, max_message=MAX_MESSAGE) as listener:
        yield listener


@contextlib.contextmanager
def good_link(listener: proclink.Listener) -> Iterator[None]:
    """Another link, which has to be as good afterwards as before."""
    client = proclink.connect(listener.address, timeout=SOON)
    with client, listener.accept(timeout=SOON) as server:
        for message in (b"before", b"after"):
            client.send(message, timeout=SOON)
            assert server.recv(timeout=SOON) == message
            if message == b"before":
                yield


CORRUPT: dict[str, bytes] = {
    "kind 0": frame(b"abc", kind=0),
    "kind 3": frame(b"abc", kind=3),
    "kind 255": frame(b"abc", kind=255),
    "one byte more than agreed": frame(b"", length=MAX_MESSAGE + 1),
    "as long as can be": frame(b"", length=TOO_LONG),
    "a negative length": b"\xff" * 8 + b"abc\x01",
    "commit byte 2": frame(b"abc", commit=b"\x02"),
    "commit byte 255": frame(b"abc", commit=b"\xff"),
    "a long one with commit byte 7": frame(bytes(200_000), commit=b"\x07"),
    "a goodbye with a payload": frame(b"abc", kind=2),
    "a frame behind the goodbye": frame(b"", kind=2) + frame(b"abc"),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("broken", CORRUPT.values(), ids=CORRUPT)
def test_a_broken_frame(listener: proclink.Listener, broken: bytes) -> None:
    with (
        good_link(listener),
        introduced_client(listener.address) as rogue,
        listener.accept(timeout=SOON) as link,
    ):
        rogue.sendall(frame(b"good") + broken)
        assert link.recv(timeout=SOON) == b"good"
        for _ in range(2):
            with pytest.raises(proclink.ChannelCorrupt):
                link.recv(timeout=SOON)
        with pytest.raises(proclink.ChannelCorrupt):
            link.send(b"x", timeout=SOON)
        assert _rest(rogue) in (b"", GOODBYE)


def _rest(rogue: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := rogue.recv(100):
            data += part
    return data


@pytest.mark.parametrize("call", ["recv_many", "recv_into", "recv_view"])
def test_a_broken_frame_in_every_call(listener: proclink.Listener, call: str) -> None:
    with introduced_client(listener.address) as rogue, listener.accept(timeout=SOON) as link:
        rogue.sendall(frame(b"", length=TOO_LONG))
        arguments = [bytearray(100)] if call == "recv_into" else []
        with pytest.raises(proclink.ChannelCorrupt):
            getattr(link, call)(*arguments, timeout=SOON)


TRUNCATED: dict[str, bytes] = {
    "in the header": frame(b"abc")[:5],
    "behind the header": frame(b"abc")[:8],
    "in the payload": frame(bytes(1000))[:500],
    "before the commit byte": frame(b"abc")[:-1],
    "in a long payload": frame(bytes(500_000))[:400_000],
    "before a long one's commit byte": frame(bytes(500_000))[:-1],
    "in the goodbye": frame(b"", kind=2)[:-1],
}


@pytest.mark.parametrize("part", TRUNCATED.values(), ids=TRUNCATED)
def test_a_truncated_frame(listener: proclink.Listener, part: bytes) -> None:
    with (
        good_link(listener),
        introduced_client(listener.address) as rogue,
        listener.accept(timeout=SOON) as link,
    ):

        def send() -> None:
            rogue.sendall(frame(b"good") + part)
            rogue.shutdown(socket.SHUT_WR)

        with running(send):
            assert link.recv(timeout=SOON) == b"good"
            for _ in range(2):
                with pytest.raises(proclink.MessageTruncated):
                    link.recv(timeout=SOON)


def test_a_message_that_comes_byte_by_byte(listener: proclink.Listener) -> None:
    with introduced_client(listener.address) as rogue, listener.accept(timeout=SOON) as link:
        for message in (b"", b"x", b"message"):
            for byte in frame(message):
                with pytest.raises(proclink.TimedOut):
                    link.recv(timeout=0)
                rogue.sendall(bytes([byte]))
            assert link.recv(timeout=SOON) == message


def test_a_message_given_up_is_dropped(listener: proclink.Listener) -> None:
    with introduced_client(listener.address) as rogue, listener.accept(timeout=SOON) as link:
        for size in (0, 10, 5000, 40_000, 500_000):
            sending = Background(
                lambda size=size: rogue.sendall(  # type: ignore[misc]
                    frame(bytes(size), commit=b"\x00") + frame(b"%d" % size)
                )
            )
            assert link.recv(timeout=SOON) == b"%d" % size
            sending.result()
        rogue.sendall(GOODBYE)
        rogue.shutdown(socket.SHUT_WR)
        with pytest.raises(proclink.PeerClosed):
            link.recv(timeout=SOON)


def test_half_a_message_leaves_the_call_its_timeout(listener: proclink.Listener) -> None:
    whole = frame(bytes(range(250)) * 400)
    with introduced_client(listener.address) as rogue, listener.accept(timeout=SOON) as link:
        for cut in (8, 9, 20_000, len(whole) - 1):
            rogue.sendall(whole[:cut])
            for timeout in (0, 0.01):
                with pytest.raises(proclink.TimedOut):
                    link.recv(timeout=timeout)
            with pytest.raises(proclink.TimedOut):
                link.recv_into(bytearray(100_000), timeout=0.01)
            rogue.sendall(whole[cut:])
            assert link.recv(timeout=SOON) == whole[8:-1]


def test_noise_never_does_harm(listener: proclink.Listener) -> None:
    noise = random.Random(7)
    with good_link(listener):
        for _ in range(100):
            with (
                introduced_client(listener.address) as rogue,
                listener.accept(timeout=SOON) as link,
            ):
                first = frame(b"", length=noise.randrange(300))[:8]
                rogue.sendall(first + noise.randbytes(noise.randrange(400)))
                rogue.shutdown(socket.SHUT_WR)
                with pytest.raises(proclink.Disconnected):
                    again_and_again(lambda link=link: link.recv(timeout=SOON))  # type: ignore[misc]


def test_a_bound_link_drops_a_rogue_and_waits_for_the_next(url: str) -> None:
    with proclink.bind(url) as server:
        waiting = Background(server.recv)
        for broken in (frame(b"abc", kind=9), frame(b"", length=TOO_LONG)):
            with introduced_client(server.address) as rogue:
                rogue.sendall(broken)
                assert _rest(rogue) in (b"", GOODBYE)
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"good")
            assert waiting.result() == b"good"


def test_a_rogue_server(url: str) -> None:
    scheme = url.partition(":")[0]

    def serve(sock: socket.socket) -> None:
        receive(sock, 64)
        sock.sendall(introduction(scheme, Kind.WELCOME) + frame(b"good") + frame(b"bad", kind=7))
        _rest(sock)

    with rogue_server(scheme, serve) as address, proclink.connect(address, timeout=SOON) as link:
        assert link.recv(timeout=SOON) == b"good"
        with pytest.raises(proclink.ChannelCorrupt):
            link.recv(timeout=SOON)


def test_a_byte_on_the_control_socket_ends_a_shared_memory_link() -> None:
    with proclink.bind("shm://frames") as server:
        with introduced_client(server.address) as rogue:
            wait_for(lambda: server.state is proclink.State.CONNECTED, "the rogue")
            rogue.sendall(b"x")
            wait_for(lambda: server.state is proclink.State.DISCONNECTED, "its end")
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"good")
            assert server.recv(timeout=SOON) == b"good"
