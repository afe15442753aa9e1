"""Any number of threads may use a link, and any of them may close it."""

from __future__ import annotations

import threading
from collections.abc import Callable

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
    wait_for,
)

THREADS = 8
EACH = 400


def _message(thread: int, number: int) -> bytes:
    size = (0, 100, 5000, 45_000)[number % 4] if number % 10 == 3 else 20
    return bytes([thread]) + number.to_bytes(4, "little") + bytes([thread]) * size


def test_messages_of_many_senders_are_not_interleaved(flow: Flow) -> None:
    def send(thread: int) -> None:
        for number in range(EACH):
            message = _message(thread, number)
            match number % 7:
                case 5:
                    flow.sender.send_many([message], timeout=SOON)
                case 6:
                    with flow.sender.loan(len(message), timeout=SOON) as room:
                        room[:] = message
                case _:
                    flow.sender.send(message, timeout=SOON)

    sending = [Background(lambda thread=thread: send(thread)) for thread in range(THREADS)]  # type: ignore[misc]
    following = [0] * THREADS
    for _ in range(THREADS * EACH):
        message = flow.receiver.recv(timeout=SOON)
        thread = message[0]
        assert message == _message(thread, following[thread])
        following[thread] += 1
    for sender in sending:
        sender.result()
    assert following == [EACH] * THREADS


def test_many_receivers_get_every_message_once(flow: Flow) -> None:
    count = 4000

    def receive(number: int) -> list[bytes]:
        received: list[bytes] = []
        buffer = bytearray(100_000)
        while True:
            if number == 0:
                some = flow.receiver.recv_many(5, timeout=SOON)
            elif number == 1:
                some = [bytes(buffer[: flow.receiver.recv_into(buffer, timeout=SOON)])]
            elif number == 2:
                with flow.receiver.recv_view(timeout=SOON) as view:
                    some = [bytes(view)]
            else:
                some = [flow.receiver.recv(timeout=SOON)]
            ends = some.count(b"end")
            received += [message for message in some if message != b"end"]
            if ends:
                for _ in range(ends - 1):
                    flow.sender.send(b"end", timeout=SOON)  # it was another one's
                return received

    receiving = [Background(lambda n=n: receive(n)) for n in range(5)]  # type: ignore[misc]
    messages = [n.to_bytes(4, "little") + NOISE[: n * 7 % 3000] for n in range(count)]
    flow.sender.send_many(messages, timeout=SOON)
    flow.sender.send_many([b"end"] * len(receiving), timeout=SOON)
    received = [receiver.result() for receiver in receiving]
    for messages_of_one in received:
        numbers = [int.from_bytes(message[:4], "little") for message in messages_of_one]
        assert numbers == sorted(numbers)
    assert sorted(m for some in received for m in some) == sorted(messages)


def test_sending_and_receiving_at_the_same_time(pair: Pair) -> None:
    stop = threading.Event()

    def chatter(link: proclink.Link) -> int:
        count = 0
        while not stop.is_set():
            link.send(NOISE[: count % 9000], timeout=SOON)
            count += 1
        link.send(b"end of it", timeout=SOON)
        return count

    def listen(link: proclink.Link) -> int:
        count = 0
        while (message := link.recv(timeout=SOON)) != b"end of it":
            assert message == NOISE[: count % 9000]
            count += 1
            if count == 2000:
                stop.set()
        return count

    chattering = [Background(lambda link=link: chatter(link)) for link in pair]  # type: ignore[misc]
    listening = [Background(lambda link=link: listen(link)) for link in reversed(pair)]  # type: ignore[misc]
    assert [c.result() for c in chattering] == [heard.result() for heard in listening]


Call = Callable[[proclink.Link], object]
RECEIVING: dict[str, Call] = {
    "recv": lambda link: link.recv(),
    "recv with a timeout": lambda link: link.recv(timeout=60),
    "recv_many": lambda link: link.recv_many(),
    "recv_into": lambda link: link.recv_into(bytearray(10)),
    "recv_view": lambda link: link.recv_view(),
}
SENDING: dict[str, Call] = {
    "send": lambda link: again_and_again(lambda: link.send(bytes(4000))),
    "send with a timeout": lambda link: again_and_again(lambda: link.send(bytes(4000), timeout=60)),
    "a huge send": lambda link: link.send(HUGE),
    "send_many": lambda link: link.send_many([bytes(4000)] * 10_000),
}


@pytest.mark.parametrize("call", RECEIVING.values(), ids=RECEIVING)
def test_close_ends_receiving(flow: Flow, call: Call) -> None:
    waiting = [Background(lambda: call(flow.receiver)) for _ in range(2)]
    for one in waiting:
        one.wait_until_blocked()
    flow.receiver.close()
    for one in waiting:
        with pytest.raises(proclink.LinkClosed):
            one.result()


@pytest.mark.parametrize("call", SENDING.values(), ids=SENDING)
def test_close_ends_sending(flow: Flow, call: Call) -> None:
    fill(flow.sender)
    waiting = [Background(lambda: call(flow.sender)) for _ in range(2)]
    for one in waiting:
        one.wait_until_blocked()
    flow.sender.close()
    for one in waiting:
        with pytest.raises(proclink.LinkClosed):
            one.result()


@pytest.mark.parametrize(
    "call", [*RECEIVING.values(), *SENDING.values()], ids=[*RECEIVING, *SENDING]
)
def test_close_ends_the_wait_for_a_peer(url: str, call: Call) -> None:
    with proclink.bind(url) as link:
        waiting = Background(lambda: call(link))
        waiting.wait_until_blocked()
        link.close()
        with pytest.raises(proclink.LinkClosed):
            waiting.result()


def test_close_ends_accept(url: str) -> None:
    with proclink.listen(url) as listener:
        waiting = [Background(listener.accept), Background(lambda: listener.accept(timeout=60))]
        for one in waiting:
            one.wait_until_blocked()
        listener.close()
        for one in waiting:
            with pytest.raises(proclink.LinkClosed):
                one.result()


def test_close_ends_iteration(flow: Flow) -> None:
    flow.sender.send_many([b"1", b"2"], timeout=SOON)
    received: list[bytes] = []

    waiting = Background(lambda: received.extend(flow.receiver))
    wait_for(lambda: received == [b"1", b"2"], "two messages")
    waiting.wait_until_blocked()
    flow.receiver.close()
    waiting.result()
    assert received == [b"1", b"2"]


def test_two_threads_close_at_once(pair: Pair) -> None:
    waiting = [Background(lambda link=link: link.recv()) for link in pair]  # type: ignore[misc]
    for one in waiting:
        one.wait_until_blocked()
    together = threading.Barrier(4)

    def close(link: proclink.Link) -> None:
        together.wait(SOON)
        link.close()

    closing = [Background(lambda link=link: close(link)) for link in (*pair, *pair)]  # type: ignore[misc]
    for one in closing:
        one.result()
    for receiving in waiting:
        with pytest.raises((proclink.LinkClosed, proclink.PeerClosed)):
            receiving.result()
