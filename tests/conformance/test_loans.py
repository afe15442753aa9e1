"""Messages written and read in place."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import proclink
from conformance.support import NOISE, SOON, Background, Flow, fill, receive_until, running
from conformance.transports import TransportUnderTest
from conftest import MakePair

HALF = 32 * 1024


# --- loans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 47, 48, 49, 4096, HALF - 17, HALF - 16, HALF - 15, 100_000])
def test_a_loan_is_sent_at_the_end_of_its_block(flow: Flow, size: int) -> None:
    def send() -> None:
        with flow.sender.loan(size, timeout=SOON) as room:
            assert isinstance(room, memoryview)
            assert (room.nbytes, room.format, room.readonly) == (size, "B", False)
            room[:] = NOISE[:size]

    with running(send):
        assert flow.receiver.recv(timeout=SOON) == NOISE[:size]


def test_many_loans_and_sends_in_order(flow: Flow) -> None:
    def send() -> None:
        for number in range(3000):
            message = number.to_bytes(2, "little") * (1 + number % 700)
            if number % 3:
                with flow.sender.loan(len(message), timeout=SOON) as room:
                    room[:] = message
            else:
                flow.sender.send(message, timeout=SOON)

    with running(send):
        for number in range(3000):
            expected = number.to_bytes(2, "little") * (1 + number % 700)
            assert flow.receiver.recv(timeout=SOON) == expected


def test_a_block_that_raises_discards_its_loan(flow: Flow) -> None:
    def interrupted() -> None:
        with flow.sender.loan(100, timeout=SOON) as room:
            room[:5] = b"wrong"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    flow.sender.send(b"after", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"after"


@pytest.mark.parametrize("size", [100, 50_000])
def test_part_of_a_loan_is_sent(flow: Flow, size: int) -> None:
    for part in (0, 1, size // 2, size):
        loan = flow.sender.loan(size, timeout=SOON)
        loan.room[:] = NOISE[:size]
        loan.send(part)
        assert flow.receiver.recv(timeout=SOON) == NOISE[:part]


def test_a_loan_sent_inside_its_block(flow: Flow) -> None:
    loan = flow.sender.loan(10, timeout=SOON)
    with loan as room:
        room[:3] = b"abc"
        loan.send(3)
    flow.sender.send(b"after", timeout=SOON)
    assert receive_until(flow.receiver, b"after") == [b"abc"]


@pytest.mark.parametrize("size", [-1, 101])
def test_more_than_the_loan_is_not_sent(flow: Flow, size: int) -> None:
    loan = flow.sender.loan(100, timeout=SOON)
    with pytest.raises(ValueError, match="cannot send"):
        loan.send(size)
    loan.room[:2] = b"ok"
    loan.send(2)
    assert flow.receiver.recv(timeout=SOON) == b"ok"


def test_a_loan_is_sent_once(flow: Flow) -> None:
    loan = flow.sender.loan(1, timeout=SOON)
    loan.room[:] = b"1"
    loan.send()
    for _ in range(2):
        with pytest.raises(ValueError, match="already"):
            loan.send()
    loan.discard()
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == [b"1"]


def test_a_discarded_loan_is_gone(flow: Flow) -> None:
    loan = flow.sender.loan(8, timeout=SOON)
    room = loan.room
    loan.discard()
    loan.discard()
    with pytest.raises(ValueError, match="already"):
        loan.send()
    with pytest.raises(ValueError, match="released"):
        room[0] = 1
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == []


def test_a_forgotten_loan_is_given_back(flow: Flow) -> None:
    for _ in range(5):
        flow.sender.loan(30_000, timeout=SOON)
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == []


@pytest.mark.parametrize("size", [64, 50_000])
def test_a_loan_with_a_live_array_stays_a_loan(flow: Flow, size: int) -> None:
    loan = flow.sender.loan(size, timeout=SOON)
    values = np.frombuffer(loan.room, np.uint8)
    values[:] = 7
    with pytest.raises(BufferError):
        loan.send()
    with pytest.raises(proclink.TimedOut):
        flow.receiver.recv(timeout=0)
    values[:] = 8
    del values
    loan.send()
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == [b"\x08" * size]


@pytest.mark.parametrize("size", [64, 50_000])
def test_a_loan_with_a_live_slice_stays_a_loan(flow: Flow, size: int) -> None:
    loan = flow.sender.loan(size, timeout=SOON)
    with loan.room[:8] as part:
        part[:] = b"12345678"
        with pytest.raises(BufferError):
            loan.send(8)
    loan.send(8)
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == [b"12345678"]


def test_a_block_that_leaves_an_array_behind_sends_nothing(flow: Flow) -> None:
    kept = []

    def careless() -> None:
        with flow.sender.loan(80, timeout=SOON) as room:
            kept.append(np.frombuffer(room, np.float64))

    with pytest.raises(BufferError):
        careless()
    kept.clear()
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == []


def test_an_array_of_a_discarded_loan_reaches_no_message(flow: Flow) -> None:
    loan = flow.sender.loan(80, timeout=SOON)
    values = np.frombuffer(loan.room, np.float64)
    with contextlib.suppress(BufferError):
        loan.discard()
    accepted = []
    with contextlib.suppress(proclink.StillHeld, proclink.TimedOut):
        flow.sender.send(bytes(80), timeout=0)
        accepted.append(bytes(80))
    values[:] = 1.5
    assert values.sum() == 15.0
    del values, loan
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == accepted


def test_a_loan_too_large(make_pair: MakePair) -> None:
    server, client = make_pair({"max_message": 10_000})
    for sender, receiver in ((server, client), (client, server)):
        for size in (10_001, 2_000_000):
            with pytest.raises(proclink.MessageTooLarge) as caught:
                sender.loan(size, timeout=SOON)
            assert (caught.value.size, caught.value.limit) == (size, 10_000)
        with sender.loan(10_000, timeout=SOON) as room:
            room[:] = NOISE[:10_000]
        assert receiver.recv(timeout=SOON) == NOISE[:10_000]


def test_a_loan_of_less_than_nothing(flow: Flow) -> None:
    with pytest.raises(ValueError, match="-1"):
        flow.sender.loan(-1, timeout=SOON)


def test_a_second_loan_of_the_same_thread(transport: TransportUnderTest, flow: Flow) -> None:
    with flow.sender.loan(10, timeout=SOON) as room:
        room[:] = b"0123456789"
        if transport.in_place:
            with pytest.raises(proclink.StillHeld):
                flow.sender.loan(10, timeout=SOON)
            with pytest.raises(proclink.StillHeld):
                flow.sender.send(b"x", timeout=0)
            with pytest.raises(proclink.StillHeld):
                flow.sender.send_many([b"x"], timeout=SOON)
        else:
            flow.sender.loan(10, timeout=SOON).discard()
    flow.sender.send(b"end", timeout=SOON)
    assert receive_until(flow.receiver, b"end") == [b"0123456789"]


def test_sends_of_other_threads_wait_for_a_loan_in_place(
    transport: TransportUnderTest, flow: Flow
) -> None:
    loan = flow.sender.loan(4, timeout=SOON)
    other = Background(lambda: flow.sender.send(b"later", timeout=SOON))
    if transport.in_place:
        other.wait_until_blocked()
        loan.room[:] = b"loan"
        loan.send()
        assert flow.receiver.recv(timeout=SOON) == b"loan"
    else:
        loan.discard()
    other.result()
    assert flow.receiver.recv(timeout=SOON) == b"later"


def test_a_loan_without_room_times_out(transport: TransportUnderTest, flow: Flow) -> None:
    sent = fill(flow.sender)
    if transport.in_place:
        for timeout in (0, 0.02):
            with pytest.raises(proclink.TimedOut):
                flow.sender.loan(4000, timeout=timeout)
        flow.sender.loan(0, timeout=0).discard()
    else:  # an ordinary buffer takes no room; the wait comes with the sending
        flow.sender.loan(4000, timeout=0).discard()
    with running(lambda: flow.sender.send(b"end", timeout=SOON)):
        assert receive_until(flow.receiver, b"end") == sent


def test_a_closed_link_loans_nothing(flow: Flow) -> None:
    flow.sender.close()
    for size in (10, 50_000):
        with pytest.raises(proclink.LinkClosed):
            flow.sender.loan(size, timeout=SOON)


def test_a_loan_outlives_its_link(flow: Flow) -> None:
    loan = flow.sender.loan(1000, timeout=SOON)
    flow.sender.close()
    loan.room[:] = NOISE[:1000]
    assert loan.room == NOISE[:1000]
    with pytest.raises(proclink.LinkClosed):
        loan.send()
    with pytest.raises((proclink.PeerClosed, proclink.TimedOut)):  # a bound link waits for the next
        flow.receiver.recv(timeout=0.02)


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 48, 5000, HALF - 16, 100_000])
def test_a_view_of_a_message(flow: Flow, size: int) -> None:
    sending = Background(lambda: flow.sender.send(NOISE[:size], timeout=SOON))
    with flow.receiver.recv_view(timeout=SOON) as view:
        assert isinstance(view, memoryview)
        assert (view.nbytes, view.format, view.readonly) == (size, "B", True)
        assert view == NOISE[:size]
    sending.result()
    with pytest.raises(ValueError, match="released"):
        view.tobytes()
    flow.sender.send(b"next", timeout=SOON)
    assert flow.receiver.recv(timeout=SOON) == b"next"


def test_views_one_after_the_other(flow: Flow) -> None:
    messages = [NOISE[number : number + 997 * (number % 30)] for number in range(500)]
    with running(lambda: flow.sender.send_many(messages, timeout=SOON)):
        for message in messages:
            with flow.receiver.recv_view(timeout=SOON) as view:
                assert view == message


def test_an_array_keeps_its_view(transport: TransportUnderTest, flow: Flow) -> None:
    numbers: Any = np.arange(100.0)
    flow.sender.send_many([numbers, b"next"], timeout=SOON)
    view = flow.receiver.recv_view(timeout=SOON)
    values = np.frombuffer(view, np.float64)
    with contextlib.suppress(BufferError):
        view.release()
    if transport.in_place:
        with pytest.raises(proclink.StillHeld):
            flow.receiver.recv(timeout=SOON)
    assert values.sum() == 4950.0
    del values, view
    assert flow.receiver.recv(timeout=SOON) == b"next"


def test_a_slice_keeps_its_view(transport: TransportUnderTest, flow: Flow) -> None:
    flow.sender.send_many([b"first", b"second"], timeout=SOON)
    view = flow.receiver.recv_view(timeout=SOON)
    part = view[1:3]
    view.release()
    assert bytes(part) == b"ir"
    if transport.in_place:
        with pytest.raises(proclink.StillHeld):
            flow.receiver.recv(timeout=SOON)
    part.release()
    assert flow.receiver.recv(timeout=SOON) == b"second"


def test_nothing_else_is_received_while_a_view_is_held(
    transport: TransportUnderTest, flow: Flow
) -> None:
    flow.sender.send_many([b"first", b"second", b"third"], timeout=SOON)
    with flow.receiver.recv_view(timeout=SOON) as view:
        if transport.in_place:
            with pytest.raises(proclink.StillHeld):
                flow.receiver.recv_view(timeout=SOON)
            with pytest.raises(proclink.StillHeld):
                flow.receiver.recv(timeout=0)
            with pytest.raises(proclink.StillHeld):
                flow.receiver.recv_many(timeout=SOON)
            with pytest.raises(proclink.StillHeld):
                flow.receiver.recv_into(bytearray(10), timeout=SOON)
            with pytest.raises(proclink.TimedOut):
                Background(lambda: flow.receiver.recv(timeout=0.02)).result()
        assert bytes(view) == b"first"
    assert flow.receiver.recv_many(2, timeout=SOON) == [b"second", b"third"]


def test_another_thread_waits_for_a_view(transport: TransportUnderTest, flow: Flow) -> None:
    flow.sender.send_many([b"first", b"second"], timeout=SOON)
    view = flow.receiver.recv_view(timeout=SOON)
    other = Background(lambda: flow.receiver.recv(timeout=SOON))
    if transport.in_place:
        other.wait_until_blocked()
    assert bytes(view) == b"first"
    view.release()
    assert other.result() == b"second"


def test_a_held_view_does_not_hinder_sending(flow: Flow) -> None:
    flow.sender.send(b"question", timeout=SOON)
    with flow.receiver.recv_view(timeout=SOON) as view:
        flow.receiver.send(view, timeout=SOON)
    assert flow.sender.recv(timeout=SOON) == b"question"


def test_a_view_gives_its_room_back(flow: Flow) -> None:
    sent = fill(flow.sender)
    for message in sent:
        with flow.receiver.recv_view(timeout=SOON) as view:
            assert view == message
    again = fill(flow.sender)
    assert len(again) >= len(sent) // 2
    for message in again:
        assert flow.receiver.recv(timeout=SOON) == message


@pytest.mark.parametrize("closes", ["receiver", "sender", "both"])
def test_a_held_view_stays_readable_after_close(flow: Flow, closes: str) -> None:
    flow.sender.send(NOISE[:20_000], timeout=SOON)
    view = flow.receiver.recv_view(timeout=SOON)
    if closes != "sender":
        flow.receiver.close()
    if closes != "receiver":
        flow.sender.close()
    assert view == NOISE[:20_000]
    values = np.frombuffer(view, np.uint8)
    del view
    assert values.tobytes() == NOISE[:20_000]
    del values
    if closes != "sender":
        with pytest.raises(proclink.LinkClosed):
            flow.receiver.recv(timeout=SOON)


def test_views_time_out_and_end_like_recv(flow: Flow) -> None:
    with pytest.raises(proclink.TimedOut):
        flow.receiver.recv_view(timeout=0)
    with pytest.raises(proclink.TimedOut):
        flow.receiver.recv_view(timeout=0.01)
    flow.receiver.close()
    with pytest.raises(proclink.LinkClosed):
        flow.receiver.recv_view(timeout=SOON)
