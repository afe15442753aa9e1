"""A view or a loan that another thread made: who waits for it is told of it."""

from __future__ import annotations

import logging

import pytest

import proclink
from conformance.support import SOON, Background, Flow, wait_for
from conformance.transports import TRANSPORTS


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record's text."""
        self.messages.append(record.getMessage())


# On the other transports they are copies, and hold nothing.
pytestmark = pytest.mark.parametrize(
    "transport",
    [transport for transport in TRANSPORTS if transport.in_place],
    ids=lambda transport: transport.name,
    indirect=True,
)


def _view(flow: Flow) -> memoryview:
    flow.sender.send_many([b"seen", b"next"], timeout=SOON)
    return Background(lambda: flow.receiver.recv_view(timeout=SOON), "the maker").result()


def test_timed_out_tells_of_a_view(flow: Flow) -> None:
    view = _view(flow)
    with pytest.raises(proclink.TimedOut, match=r"a view of .* a thread that has ended"):
        flow.receiver.recv(timeout=0.01)
    with pytest.raises(proclink.TimedOut, match="a view of"):
        flow.receiver.recv_many(timeout=0)
    view.release()  # in another thread than made it
    assert flow.receiver.recv(timeout=SOON) == b"next"


def test_timed_out_tells_of_a_loan(flow: Flow) -> None:
    loan = flow.sender.loan(4, timeout=SOON)

    def send() -> str:
        with pytest.raises(proclink.TimedOut) as told:
            flow.sender.send(b"x", timeout=0.01)
        return str(told.value)

    assert "a loan of" in (told := Background(send).result())
    assert "MainThread" in told
    loan.room[:] = b"sent"
    Background(loan.send).result()
    assert flow.receiver.recv(timeout=SOON) == b"sent"


def test_a_wait_for_a_view_tells_after_some_time(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("proclink"), "handlers", [kept])
    view = _view(flow)
    receiving = Background(flow.receiver.recv)
    wait_for(lambda: any("a call has waited" in text for text in kept.messages), "a warning")
    receiving.wait_until_blocked()
    view.release()
    assert receiving.result() == b"next"
    assert len([text for text in kept.messages if "a view of" in text]) == 1
