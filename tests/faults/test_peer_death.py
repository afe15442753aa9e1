"""A peer that vanishes: in every phase it is noticed, and what it had sent is received."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

import proclink
from conformance.support import HUGE, SOON, Background, again_and_again, fill, wait_for
from conformance.transports import TRANSPORTS, TransportUnderTest
from faults import roles
from faults.children import Child
from faults.roles import numbered

BETWEEN_PROCESSES = [t for t in TRANSPORTS if t.name not in ("memory", "pipe-path")]


@pytest.fixture(params=BETWEEN_PROCESSES, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> TransportUnderTest:
    """The transports that reach another process."""
    assert isinstance(request.param, TransportUnderTest)
    return request.param


def test_killed_while_idle(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.receive_nothing, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        waiting = Background(link.recv)
        waiting.wait_until_blocked()
        child.hear()
        child.kill()
        with pytest.raises(proclink.PeerLost) as caught:
            waiting.result()
        assert not isinstance(caught.value, proclink.MessageTruncated)
        assert link.state is proclink.State.DISCONNECTED
        for timeout in (None, 1, 0):
            with pytest.raises(proclink.PeerLost):
                link.recv(timeout=timeout)


def test_a_sender_sees_a_killed_peer(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.receive_nothing, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        child.hear()
        child.kill()
        with pytest.raises(proclink.PeerLost):
            again_and_again(lambda: link.send(bytes(100), timeout=SOON))


@pytest.mark.parametrize("message", [bytes(4000), HUGE], ids=["small", "huge"])
def test_a_waiting_sender_sees_its_peer_killed(url: str, message: bytes) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.receive_nothing, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        child.hear()
        fill(link)
        waiting = Background(lambda: link.send_many([message] * 500))
        waiting.wait_until_blocked()
        child.kill()
        with pytest.raises(proclink.PeerLost):
            waiting.result()


def test_a_sender_that_only_tries_sees_its_peer_killed(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.receive_nothing, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        child.hear()
        fill(link)
        child.kill()

        def send() -> bool:
            with contextlib.suppress(proclink.TimedOut):
                link.send(bytes(4000), timeout=0)
            return False

        with pytest.raises(proclink.PeerLost):
            wait_for(send, "the loss of the peer")


def test_everything_sent_before_the_kill_is_received(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.send_some, listener.address, 100, "wait") as child,
        listener.accept(timeout=SOON) as link,
    ):
        child.hear()
        child.kill()
        for number in range(100):
            assert link.recv(timeout=SOON) == numbered(number)
        with pytest.raises(proclink.PeerLost):
            link.recv(timeout=SOON)


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ("close", proclink.PeerClosed),
        ("leave", proclink.PeerLost),
        ("exit", proclink.Disconnected),
    ],
)
def test_an_exit_without_a_signal(url: str, then: str, error: type[proclink.ProclinkError]) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.send_some, listener.address, 100, then) as child,
        listener.accept(timeout=SOON) as link,
    ):
        for number in range(100):
            assert link.recv(timeout=SOON) == numbered(number)
        with pytest.raises(error):
            link.recv(timeout=SOON)
        assert child.wait() == 0


@pytest.mark.parametrize(
    ("taken", "step"), [(0, 80), (1, 80), (500, 80), (3000, 80), (1, 3000), (70, 3000), (170, 3000)]
)
def test_killed_in_the_middle_of_a_stream(url: str, taken: int, step: int) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.send_on_and_on, listener.address, step) as child,
        listener.accept(timeout=SOON) as link,
    ):
        number = 0
        while number < taken:
            assert link.recv(timeout=SOON) == numbered(number, 8 + number % 100 * step)
            number += 1
        child.kill()
        rest: list[bytes] = []
        with pytest.raises(proclink.PeerLost):  # perhaps MessageTruncated, which is one
            again_and_again(lambda: rest.append(link.recv(timeout=SOON)))
        for message in rest:
            assert message == numbered(number, 8 + number % 100 * step)
            number += 1


def test_killed_in_the_middle_of_a_huge_message(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.send_huge, listener.address, 3) as child,
        listener.accept(timeout=SOON) as link,
    ):
        for number in range(3):
            assert link.recv(timeout=SOON) == numbered(number)
        with pytest.raises(proclink.BufferTooSmall):  # so the huge one has begun
            link.recv_into(bytearray(10), timeout=SOON)
        child.kill()
        for _ in range(2):
            with pytest.raises(proclink.MessageTruncated):
                link.recv(timeout=SOON)


def test_a_receiver_is_killed_in_the_middle_of_a_huge_message(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.receive_part, listener.address) as child,
        listener.accept(timeout=SOON) as link,
    ):
        sending = Background(lambda: link.send_many([b"first", HUGE]))
        child.hear()
        sending.wait_until_blocked()
        child.kill()
        with pytest.raises(proclink.PeerLost) as caught:
            sending.result()
        assert caught.value.sent == 1


def test_a_server_is_killed(transport: TransportUnderTest, url: str) -> None:
    with Child(roles.serve_messages, url, 50) as child:
        address = child.hear()
        with proclink.connect(address, timeout=SOON) as link:
            child.hear()
            child.kill()
            for number in range(50):
                assert link.recv(timeout=SOON) == numbered(number)
            with pytest.raises(proclink.PeerLost):
                link.recv(timeout=SOON)
        with pytest.raises(proclink.NoServer):
            proclink.connect(address, timeout=0.05)
        with proclink.bind(address) as server:  # and its address can be taken at once
            assert server.address == address


def _counts() -> tuple[int, int, int]:
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), maps.count("memfd:proclink")


def test_a_bound_link_outlives_twenty_peers(url: str) -> None:
    with proclink.bind(url) as server:
        before = _counts()
        with Child(roles.echo_once_in_each, server.address, 20) as child:
            for round_ in range(20):
                pid = int(server.recv(timeout=SOON).removeprefix(b"from "))
                server.send(b"round %d" % round_, timeout=SOON)
                assert child.hear() == "connected"
                assert child.hear() == f"round {round_}"
                assert server.peer is not None
                assert server.peer.pid in (pid, None)
                os.kill(pid, signal.SIGKILL)
                assert child.hear() == "gone"
                with pytest.raises(proclink.TimedOut):
                    server.recv(timeout=0.001)
        # The dead peer's channel goes with the first call that sees its end.
        assert _counts() == before


def test_nothing_is_sent_to_a_peer_that_was_killed(url: str) -> None:
    with proclink.bind(url) as server:
        with Child(roles.echo_once, server.address) as first:
            server.recv(timeout=SOON)
            server.send(b"to the first", timeout=SOON)
            assert first.hear() == "connected"
            assert first.hear() == "to the first"
            first.kill()
        with Child(roles.echo_once, server.address) as second:
            assert second.hear() == "connected"
            # The next one was let in, so the end of the last one was seen.
            with pytest.raises(proclink.PeerLost):
                server.send(b"to the first", timeout=SOON)
            server.send(b"to the second", timeout=SOON)
            assert second.hear() == "to the second"


def test_a_waiting_call_goes_on_with_the_restarted_peer(url: str) -> None:
    with proclink.bind(url) as server:
        waiting = Background(server.recv)
        for _ in range(3):
            with Child(roles.receive_nothing, server.address) as child:
                child.hear()
                waiting.wait_until_blocked()
                child.kill()
        with Child(roles.send_one, server.address, "at last"):
            assert waiting.result() == b"at last"


def test_messages_of_a_killed_peer_come_before_those_of_the_next(url: str) -> None:
    with proclink.bind(url) as server:
        for _ in range(2):
            with Child(roles.send_some, server.address, 30, "wait") as child:
                child.hear()
                child.kill()
        for _ in range(2):
            for number in range(30):
                assert server.recv(timeout=SOON) == numbered(number)
        with pytest.raises(proclink.TimedOut):
            server.recv(timeout=0.01)


def test_a_bound_link_drops_half_a_message_and_goes_on(url: str) -> None:
    with proclink.bind(url) as server:
        with Child(roles.send_huge, server.address, 2) as child:
            assert server.recv(timeout=SOON) == numbered(0)
            assert server.recv(timeout=SOON) == numbered(1)
            with pytest.raises(proclink.BufferTooSmall):
                server.recv_into(bytearray(10), timeout=SOON)
            child.kill()
        with Child(roles.send_one, server.address, "next"):
            assert server.recv(timeout=SOON) == b"next"


def test_iteration_over_a_lost_peer_says_so(url: str) -> None:
    with (
        proclink.listen(url) as listener,
        Child(roles.send_some, listener.address, 5, "leave"),
        listener.accept(timeout=SOON) as link,
    ):
        received: list[bytes] = []
        with pytest.raises(proclink.PeerLost):
            received.extend(link)
        del received
        assert link.state is proclink.State.DISCONNECTED
