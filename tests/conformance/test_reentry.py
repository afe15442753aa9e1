"""A signal handler in the middle of a call may close; what would wait for itself is told."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

import proclink
from conformance.support import HUGE, SOON, Background, Flow, again_and_again, blocks, fill

Call = Callable[[proclink.Link], object]
RECEIVING: dict[str, Call] = {
    "recv": lambda link: link.recv(timeout=SOON),
    "recv_many": lambda link: link.recv_many(timeout=SOON),
    "recv_into": lambda link: link.recv_into(bytearray(10), timeout=SOON),
    "recv_view": lambda link: link.recv_view(timeout=SOON).release(),
}
SENDING: dict[str, Call] = {
    # Again and again: a network that is full has room for a little more some time later.
    "send": lambda link: again_and_again(lambda: link.send(bytes(4000), timeout=SOON)),
    "a huge send": lambda link: link.send(HUGE, timeout=SOON),
    "send_many": lambda link: link.send_many([bytes(4000)] * 10_000, timeout=SOON),
    "loan": lambda link: again_and_again(lambda: link.loan(4000, timeout=SOON).send()),
}


class Stop(Exception):
    """Raised by a signal handler."""


@contextlib.contextmanager
def when_blocked(to: str, handler: Callable[[], object]) -> Iterator[None]:
    """Runs ``handler`` as a signal handler once the main thread waits in the block.

    Args:
        to: ``"main"``, or ``"other"`` for a signal that the system gives to another thread.
        handler: Runs in the main thread, as Python's handlers do.
    """

    def run(_number: int, _frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGUSR1, run)
    main = threading.main_thread()
    over = threading.Event()
    target = threading.Thread(target=over.wait)
    target.start()

    def press() -> None:
        blocks(main)
        thread = main if to == "main" else target
        signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)

    pressing = Background(press)
    try:
        yield
    finally:
        over.set()
        pressing.result()
        target.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture(params=["main", "other"])
def to(request: pytest.FixtureRequest) -> str:
    """Which thread the system gives the signal to."""
    return str(request.param)


def _prepare(flow: Flow, call: str) -> proclink.Link:
    """The end to call, where the call has to wait."""
    if call in RECEIVING:
        return flow.receiver
    fill(flow.sender)
    return flow.sender


CALLS = RECEIVING | SENDING


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_raises_ends_the_call(flow: Flow, call: str, to: str) -> None:
    def handler() -> None:
        raise Stop

    link = _prepare(flow, call)
    with pytest.raises(Stop), when_blocked(to, handler):
        CALLS[call](link)


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_may_close_the_link(flow: Flow, call: str, to: str) -> None:
    link = _prepare(flow, call)
    with pytest.raises(proclink.LinkClosed), when_blocked(to, link.close):
        CALLS[call](link)
    assert link.state is proclink.State.CLOSED


@pytest.mark.parametrize(
    ("call", "again"),
    [(call, again) for calls in (RECEIVING, SENDING) for call in calls for again in calls],
)
def test_a_handler_that_calls_the_same_way_is_told(flow: Flow, call: str, again: str) -> None:
    link = _prepare(flow, call)
    told: list[str] = []

    def handler() -> None:
        try:
            CALLS[again](link)
        except proclink.InUse as error:
            told.append(str(error))
        raise Stop

    with pytest.raises(Stop), when_blocked("main", handler):
        CALLS[call](link)
    doing = "receiving" if call in RECEIVING else "sending"
    assert len(told) == 1
    assert doing in told[0]


def test_a_handler_may_send_while_its_thread_receives(flow: Flow) -> None:
    def handler() -> None:
        flow.receiver.send(b"from the handler", timeout=SOON)

    with pytest.raises(proclink.TimedOut), when_blocked("main", handler):
        flow.receiver.recv(timeout=0.5)
    assert flow.sender.recv(timeout=SOON) == b"from the handler"


def test_the_call_goes_on_after_the_handler(flow: Flow, to: str) -> None:
    handled: list[bool] = []

    def handler() -> None:
        handled.append(True)
        Background(lambda: flow.sender.send(b"late", timeout=SOON))

    with when_blocked(to, handler):
        assert flow.receiver.recv(timeout=SOON) == b"late"
    assert handled == [True]


# --- a bound end without a peer, and a listener ---------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_raises_ends_the_wait_for_a_peer(url: str, call: str, to: str) -> None:
    def handler() -> None:
        raise Stop

    with proclink.bind(url) as link, pytest.raises(Stop), when_blocked(to, handler):
        CALLS[call](link)


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_may_close_a_link_without_a_peer(url: str, call: str, to: str) -> None:
    with (
        proclink.bind(url) as link,
        pytest.raises(proclink.LinkClosed),
        when_blocked(to, link.close),
    ):
        CALLS[call](link)


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_waits_for_a_peer_again_is_told(url: str, call: str) -> None:
    with proclink.bind(url) as link:

        def handler() -> None:
            with pytest.raises(proclink.InUse):
                CALLS[call](link)
            raise Stop

        with pytest.raises(Stop), when_blocked("main", handler):
            CALLS[call](link)


def test_a_handler_that_raises_ends_accept(url: str, to: str) -> None:
    def handler() -> None:
        raise Stop

    with proclink.listen(url) as listener:
        for timeout in (None, SOON):
            with pytest.raises(Stop), when_blocked(to, handler):
                listener.accept(timeout)
        with (
            proclink.connect(listener.address, timeout=SOON),
            listener.accept(timeout=SOON) as link,
        ):
            assert link.state is proclink.State.CONNECTED


def test_a_handler_may_close_the_listener(url: str, to: str) -> None:
    with (
        proclink.listen(url) as listener,
        pytest.raises(proclink.LinkClosed),
        when_blocked(to, listener.close),
    ):
        listener.accept()


def test_a_handler_that_accepts_again_is_told(url: str) -> None:
    with proclink.listen(url) as listener:

        def handler() -> None:
            with pytest.raises(proclink.InUse):
                listener.accept(timeout=SOON)
            raise Stop

        with pytest.raises(Stop), when_blocked("main", handler):
            listener.accept()


# --- who was in the way ---------------------------------------------------------------------------


def test_timed_out_tells_of_another_thread_that_receives(flow: Flow) -> None:
    with pytest.raises(proclink.TimedOut, match="no message came"):
        flow.receiver.recv(timeout=0)
    receiving = Background(lambda: flow.receiver.recv(timeout=SOON))
    receiving.wait_until_blocked()
    for timeout in (0, 0.01):
        with pytest.raises(proclink.TimedOut, match="another thread of this process was receiving"):
            flow.receiver.recv(timeout=timeout)
    flow.sender.send(b"x", timeout=SOON)
    assert receiving.result() == b"x"


def test_timed_out_tells_of_another_thread_that_sends(flow: Flow) -> None:
    fill(flow.sender)
    with pytest.raises(proclink.TimedOut, match="did not make room"):
        again_and_again(lambda: flow.sender.send(bytes(4000), timeout=0))
    sending = Background(lambda: again_and_again(lambda: flow.sender.send(bytes(4000))))
    sending.wait_until_blocked()
    for timeout in (0, 0.01):
        with pytest.raises(proclink.TimedOut, match="another thread of this process was sending"):
            flow.sender.send(bytes(4000), timeout=timeout)
    flow.sender.close()
    with pytest.raises(proclink.LinkClosed):
        sending.result()


def test_first_come_first_served(flow: Flow) -> None:
    done = 0

    def stream() -> None:
        nonlocal done
        with contextlib.suppress(proclink.LinkClosed):
            while True:
                flow.sender.send(done.to_bytes(4, "little") + bytes(4000))
                done += 1

    streaming = Background(stream)
    streaming.wait_until_blocked()
    single = Background(lambda: flow.sender.send(b"single", timeout=SOON))
    single.wait_until_blocked()
    before = done
    following = 0
    while (message := flow.receiver.recv(timeout=SOON)) != b"single":
        assert int.from_bytes(message[:4], "little") == following
        following += 1
    # The stream's thread has its turn, and may not have counted the one before yet. The next turn
    # is not its own, however soon it wants it.
    assert following <= before + 2
    single.result()
    flow.sender.close()
    streaming.result()
