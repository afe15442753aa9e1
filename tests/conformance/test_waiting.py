"""Timeouts, full links, and what a call that gave up leaves behind: nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

import proclink
from conformance.support import (
    HUGE,
    NOISE,
    SOON,
    Background,
    Flow,
    Pair,
    again_and_again,
    fill,
    receive_until,
    running,
)
from conformance.transports import TransportUnderTest
from conftest import MakePair


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, 0.02, False])
def test_receiving_times_out(pair: Pair, timeout: float) -> None:
    for link in pair:
        with pytest.raises(proclink.TimedOut):
            link.recv(timeout=timeout)
        with pytest.raises(proclink.TimedOut):
            link.recv_many(timeout=timeout)
        with pytest.raises(proclink.TimedOut):
            link.recv_into(bytearray(8), timeout=timeout)
        with pytest.raises(TimeoutError):
            link.recv_view(timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_what_is_there_is_received_with_any_timeout(flow: Flow, timeout: float) -> None:
    for number in range(4):
        flow.sender.send(b"%d" % number, timeout=timeout)
    # The first one may be on its way still.
    assert flow.receiver.recv(timeout=SOON) == b"0"
    assert flow.receiver.recv_many(1, timeout=SOON) == [b"1"]
    assert flow.receiver.recv_into(bytearray(1), timeout=SOON) == 1
    assert bytes(flow.receiver.recv_view(timeout=SOON)) == b"3"


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**10, SOON])
def test_a_long_wait_ends_with_a_message(flow: Flow, timeout: float | None) -> None:
    waiting = Background(lambda: flow.receiver.recv(timeout=timeout))
    waiting.wait_until_blocked()
    flow.sender.send(b"message", timeout=timeout)
    assert waiting.result() == b"message"


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan])
def test_a_timeout_that_makes_no_sense(flow: Flow, url: str, timeout: float) -> None:
    for link in flow:
        _refuse_timeout(link, timeout, ValueError)
    with pytest.raises(ValueError, match="timeout"):
        proclink.connect(url, timeout=timeout)
    flow.sender.send(b"after", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"after"


@pytest.mark.parametrize(
    "timeout", ["1", b"1", [1], 1j, object()], ids=lambda timeout: type(timeout).__name__
)
def test_a_timeout_that_is_no_number(flow: Flow, url: str, timeout: Any) -> None:
    for link in flow:
        _refuse_timeout(link, timeout, TypeError)
    with pytest.raises(TypeError):
        proclink.connect(url, timeout=timeout)
    flow.sender.send(b"after", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"after"


def _refuse_timeout(link: proclink.Link, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        link.send(b"x", timeout=timeout)
    with pytest.raises(error):
        link.send_many([b"x"], timeout=timeout)
    with pytest.raises(error):
        link.loan(1, timeout=timeout)
    with pytest.raises(error):
        link.recv(timeout=timeout)
    with pytest.raises(error):
        link.recv_many(timeout=timeout)
    with pytest.raises(error):
        link.recv_into(bytearray(1), timeout=timeout)
    with pytest.raises(error):
        link.recv_view(timeout=timeout)


@pytest.mark.parametrize("wrong", [-1, math.nan, "1"], ids=repr)
def test_a_wrong_timeout_is_refused_without_a_peer_too(url: str, wrong: Any) -> None:
    with proclink.bind(url) as link:
        _refuse_timeout(link, wrong, (ValueError, TypeError))  # type: ignore[arg-type]
    with proclink.listen(url) as listener, pytest.raises((ValueError, TypeError)):
        listener.accept(timeout=wrong)


# --- full -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 4000, 20_000])
def test_a_full_link_times_out_and_goes_on(flow: Flow, size: int) -> None:
    sent = fill(flow.sender, size)
    assert sent
    for timeout in (0, 0.01):
        with pytest.raises(proclink.TimedOut):
            flow.sender.send(HUGE, timeout=timeout)
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == sent


def test_a_message_received_makes_room_for_one(transport: TransportUnderTest, flow: Flow) -> None:
    expected = fill(flow.sender)
    received = 0
    for number in range(6):
        message = b"%04d" % number * 1000
        while True:
            assert flow.receiver.recv(timeout=SOON) == expected[received]
            received += 1
            try:
                flow.sender.send(message, timeout=0)
                break
            except proclink.TimedOut:
                assert not transport.counted, "the room of a message received is not given back"
        expected += [message, *fill(flow.sender)]
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == expected[received:]


def test_a_waiting_sender_goes_on_when_there_is_room(flow: Flow) -> None:
    sent = fill(flow.sender)
    waiting = Background(lambda: flow.sender.send_many([HUGE, b"end"], timeout=SOON))
    waiting.wait_until_blocked()
    assert receive_until(flow.receiver, b"end") == [*sent, HUGE]
    waiting.result()


@pytest.mark.parametrize("size", [4000, 30_000, 100_000, len(HUGE)])
def test_a_send_that_timed_out_never_arrives(flow: Flow, size: int) -> None:
    sent = fill(flow.sender)
    given_up = 0
    while given_up < 3:
        try:
            flow.sender.send(HUGE[:size], timeout=0.005)
            sent.append(HUGE[:size])  # the system made its buffers larger
        except proclink.TimedOut:
            given_up += 1
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == sent


def test_a_huge_send_that_timed_out_halfway_never_arrives(flow: Flow) -> None:
    flow.sender.send(b"first", timeout=SOON)
    with pytest.raises(proclink.TimedOut):
        flow.sender.send(HUGE, timeout=0.05)
    with running(lambda: flow.sender.send_many([b"next", HUGE, b"end"], timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == [b"first", b"next", HUGE]


def test_a_huge_send_gives_up_while_it_is_received(flow: Flow) -> None:
    """Whatever was sent arrives, and whatever raised does not, also with a receiver in the way."""
    expected = []
    with Receiving(flow.receiver) as receiving:
        for number in range(60):
            message = number.to_bytes(2, "little") + NOISE[:1_000_000]
            try:
                flow.sender.send(message, timeout=number * 10e-6)
                expected.append(message)
            except proclink.TimedOut:
                flow.sender.send(b"%d" % number, timeout=SOON)
                expected.append(b"%d" % number)
        flow.sender.send(b"end", timeout=SOON)
    assert receiving.messages == expected


class Receiving:
    """Receives in a thread, up to ``b"end"``."""

    def __init__(self, link: proclink.Link) -> None:
        self._thread = Background(lambda: receive_until(link, b"end"))
        self.messages: list[bytes] = []

    def __enter__(self) -> Receiving:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.messages = self._thread.result()


@pytest.mark.parametrize("size", [8, 3000, 40_000])
@pytest.mark.parametrize("timeout", [0, 0.0005])
def test_send_many_tells_exactly_how_many_were_sent(flow: Flow, size: int, timeout: float) -> None:
    messages = [number.to_bytes(4, "little") + NOISE[: size - 4] for number in range(3000)]
    messages = messages[: 8_000_000 // size]
    with Receiving(flow.receiver) as receiving:
        done = 0
        while done < len(messages):
            try:
                batch = messages[done : done + 300]
                flow.sender.send_many(batch, timeout=timeout)
                done += len(batch)
            except proclink.TimedOut as error:
                done += error.sent
        assert done == len(messages)
        flow.sender.send(b"end", timeout=SOON)
    numbers = [int.from_bytes(message[:4], "little") for message in receiving.messages]
    assert numbers == list(range(len(messages)))
    assert receiving.messages == messages


def test_send_many_into_a_full_link(flow: Flow) -> None:
    sent = fill(flow.sender)
    batch = [b"%05d" % number * 200 for number in range(5000)]
    with pytest.raises(proclink.TimedOut) as caught:
        flow.sender.send_many(batch, timeout=0.01)
    expected = sent + batch[: caught.value.sent]
    with pytest.raises(proclink.TimedOut) as caught:
        flow.sender.send_many([HUGE], timeout=0.01)
    assert caught.value.sent == 0
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == expected


def test_send_many_tells_how_many_were_sent_before_a_close(pair: Pair) -> None:
    batch = [b"%05d" % number * 200 for number in range(20_000)]
    sending = Background(lambda: pair.server.send_many(batch))
    sending.wait_until_blocked()
    received: list[bytes] = []

    def receive() -> None:
        with pytest.raises(proclink.PeerClosed):
            again_and_again(lambda: received.append(pair.client.recv(timeout=SOON)))

    closing = Background(lambda: pair.server.close(timeout=SOON))
    with running(receive), pytest.raises(proclink.LinkClosed) as caught:
        sending.result()
    closing.result()
    assert received == batch[: caught.value.sent]
    assert 0 < caught.value.sent < len(batch)


def test_send_many_of_nothing_on_a_full_link(flow: Flow) -> None:
    sent = fill(flow.sender)
    batch = [b"%05d" % number * 200 for number in range(5000)]
    with pytest.raises(proclink.TimedOut) as caught:
        flow.sender.send_many(batch, timeout=0)
    flow.sender.send_many([], timeout=SOON)
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == sent + batch[: caught.value.sent]


def test_both_sides_send_into_full_buffers(pair: Pair) -> None:
    """Neither waits for the other for ever, and nothing that was sent is lost."""

    def push(link: proclink.Link) -> list[bytes]:
        sent: list[bytes] = []
        while True:
            message = NOISE[len(sent) : len(sent) + 5000]
            try:
                link.send(message, timeout=0.05)
            except proclink.TimedOut:
                return sent
            sent.append(message)

    other = Background(lambda: push(pair.server))
    from_client = push(pair.client)
    from_server = other.result()
    for link in pair:  # what was given up halfway is settled as the other side receives
        with pytest.raises(proclink.TimedOut):
            link.send(HUGE, timeout=0)
    finish = [Background(lambda link=link: link.send(b"end", timeout=SOON)) for link in pair]  # type: ignore[misc]
    assert receive_until(pair.server, b"end") == from_client
    assert receive_until(pair.client, b"end") == from_server
    for sending in finish:
        sending.result()


def test_the_peer_does_not_see_a_given_up_message_when_the_link_closes(flow: Flow) -> None:
    flow.sender.send(b"first", timeout=SOON)
    with pytest.raises(proclink.TimedOut):
        flow.sender.send(HUGE, timeout=0.02)
    flow.sender.close()
    assert flow.receiver.recv(timeout=SOON) == b"first"
    with pytest.raises((proclink.Disconnected, proclink.TimedOut)):
        flow.receiver.recv(timeout=0.05)


def test_nobody_comes(url: str) -> None:
    with proclink.bind(url) as link:
        for timeout in (0, 0.01):
            with pytest.raises(proclink.TimedOut):
                link.send(b"x", timeout=timeout)
            with pytest.raises(proclink.TimedOut):
                link.send_many([b"x"], timeout=timeout)
            with pytest.raises(proclink.TimedOut):
                link.loan(8, timeout=timeout)
            with pytest.raises(proclink.TimedOut):
                link.recv(timeout=timeout)
            with pytest.raises(proclink.TimedOut):
                link.recv_view(timeout=timeout)
    with proclink.listen(url) as listener:
        for timeout in (0, 0.01):
            with pytest.raises(proclink.TimedOut):
                listener.accept(timeout=timeout)


def test_a_message_too_large_is_refused_on_a_full_link(make_pair: MakePair) -> None:
    server, client = make_pair({"max_message": 10_000, "ring_size": 64 * 1024})
    sent = fill(client)
    for message in (bytes(10_001), HUGE):
        with pytest.raises(proclink.MessageTooLarge):
            client.send(message, timeout=0)
    with running(lambda: client.send(b"end", timeout=SOON)):
        assert receive_until(server, b"end") == sent
