"""Processes that end in every way there is. Run like ``faults.roles``."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator

# Registered before proclink is imported, so called after whatever it registers.
_last: list[Callable[[], object]] = []
atexit.register(lambda: [call() for call in _last])

import contextlib  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import proclink  # noqa: E402
from faults.roles import LONG, hear, run, say  # noqa: E402
from proclink import _aside  # noqa: E402


def _pair(url: str) -> tuple[proclink.Link, proclink.Link]:
    bound = proclink.bind(url)
    link = proclink.connect(bound.address, timeout=LONG)
    link.send(b"first", timeout=LONG)
    bound.recv(timeout=LONG)
    return bound, link


def _in_daemon(call: Callable[[], object]) -> None:
    def run_quietly() -> None:
        with contextlib.suppress(proclink.ProclinkError):
            call()

    threading.Thread(target=run_quietly, daemon=True).start()


def close_last(url: str) -> None:
    """Closes a link, in which a daemon thread waits, in the last thing called at exit."""
    bound, link = _pair(url)
    _in_daemon(link.recv)
    _in_daemon(bound.recv)
    _last.extend([link.close, bound.close, lambda: say("closed")])
    say("leaving")


class ShippingHandler(logging.Handler):
    """Sends records over a link, and closes it with the logging system."""

    def __init__(self, link: proclink.Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record's text."""
        try:
            self._link.send(self.format(record).encode(), timeout=0)
        except proclink.ProclinkError:
            self.handleError(record)

    def close(self) -> None:
        """Closes the link."""
        self._link.close()
        super().close()
        say("closed")


def close_with_logging(url: str) -> None:
    """A log handler closes its link when the logging system ends."""
    _, link = _pair(url)
    _in_daemon(link.recv)
    logging.getLogger("somebody").addHandler(ShippingHandler(link))
    logging.getLogger("somebody").error("hello")
    say("leaving")


def close_nothing(url: str) -> None:
    """Leaves links, a listener, and daemon threads that wait in them."""
    warnings.simplefilter("ignore")
    bound, link = _pair(url)
    listener = proclink.listen("memory://left")
    for call in (link.recv, bound.recv, listener.accept):
        _in_daemon(call)
    say("leaving")


def leave_in_full_swing(url: str) -> None:
    """Daemon threads come back from waits all the time as the process ends."""
    warnings.simplefilter("ignore")
    bound, link = _pair(url)

    def pong() -> None:
        while True:
            bound.send(bound.recv())

    def ping() -> None:
        while True:
            link.send(b"x")
            link.recv()

    _in_daemon(pong)
    _in_daemon(ping)
    time.sleep(0.05)  # any moment will do
    say("leaving")


class _Owner:
    def __init__(self, link: proclink.Link) -> None:
        self._link = link

    def __del__(self) -> None:
        self._link.close()


def close_in_a_finalizer(url: str) -> None:
    """An object of the module closes its link when the module is cleared away."""
    warnings.simplefilter("ignore")
    _, link = _pair(url)
    _in_daemon(link.recv)
    globals()["owner"] = _Owner(link)
    say("leaving")


class _Slow:
    """Code of the caller's that runs inside a call, for good: where the interpreter ends it."""

    def __init__(self) -> None:
        self.entered = threading.Event()

    def _sleep(self) -> None:
        self.entered.set()
        while True:
            time.sleep(0.001)

    def __iter__(self) -> Iterator[bytes]:
        self._sleep()
        yield b""

    def __float__(self) -> float:
        self._sleep()
        return 0.0

    def __buffer__(self, flags: int) -> memoryview:
        self._sleep()
        return memoryview(b"")


def leave_in_code_of_the_callers(url: str) -> None:
    """Daemon threads are in code of the caller's as the process ends, which closes their links."""
    warnings.simplefilter("ignore")
    _, link = _pair(url)
    globals()["owner"] = _Owner(link)
    calls: list[Callable[[Any], object]] = [
        link.send_many,
        lambda slow: link.recv(timeout=slow),
    ]
    if sys.version_info >= (3, 12):
        calls += [
            link.send,
            lambda slow: link.send_many([b"first", slow]),
            link.recv_into,
        ]
    for call in calls:
        slow = _Slow()
        _in_daemon(lambda call=call, slow=slow: call(slow))  # type: ignore[misc]
        if not slow.entered.wait(LONG):
            raise AssertionError("it was not called")
    say("leaving")


def _talk(address: str) -> None:
    with proclink.connect(address, timeout=LONG) as link:
        for _ in range(500):
            link.send(b"x", timeout=LONG)
            link.recv(timeout=LONG)
        link.send(b"done", timeout=LONG)
        link.recv(timeout=LONG)


def serve_a_child_to_its_end(url: str) -> None:
    """multiprocessing waits for its child at exit, whom a daemon thread serves."""
    bound = proclink.bind(url)

    def serve() -> None:
        while True:
            message = bound.recv()
            bound.send(message)
            if message == b"done":
                say("closed")

    _in_daemon(serve)
    multiprocessing.get_context("spawn").Process(target=_talk, args=(bound.address,)).start()
    say("leaving")


# --- forgotten links ------------------------------------------------------------------------------


class _Service:
    """Only the garbage collector frees it."""

    def __init__(self, thing: object) -> None:
        self.thing = thing
        self.me = self


def _forgotten(kind: str, url: str) -> object:
    if kind == "bound":
        return proclink.bind(url)
    if kind == "listener":
        return proclink.listen(url)
    bound, link = _pair(url)
    globals()["kept"] = bound
    return link


def forget(kind: str, url: str) -> None:
    """Something unclosed is collected in the supervisor's thread."""
    from proclink._supervisor import supervisor

    warned: list[str] = []
    warnings.showwarning = lambda message, *_: warned.append(str(message))
    warnings.simplefilter("always")
    other = proclink.listen("pipe://other")
    gc.collect()
    gc.disable()
    _Service(_forgotten(kind, url))
    collected = threading.Event()
    loop = supervisor().loop
    loop.call_soon_threadsafe(gc.collect)
    loop.call_soon_threadsafe(collected.set)
    collected.wait(LONG)
    with proclink.connect("pipe://other", timeout=LONG), other.accept(timeout=LONG):
        say("accepted")
    with proclink.bind("pipe://another"):
        say("bound")
    for aside in (_aside.errands, _aside.reports):
        aside.call(lambda: None)
    say([text for text in warned if "unclosed" in text])
    other.close()


def ship_logs(url: str) -> None:
    """The root logger's handler ships everything over a link, proclink's own records too."""
    bound, link = _pair(url)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(ShippingHandler(link))
    with proclink.listen("pipe://logged") as listener:
        for _ in range(3):
            with proclink.connect("pipe://logged", timeout=LONG), listener.accept(timeout=LONG):
                pass
        say("worked")
        bound.close()  # from now on each record's sending fails
        logging.raiseExceptions = False
        with proclink.connect("pipe://logged", timeout=LONG), listener.accept(timeout=LONG):
            pass
    root.handlers.clear()
    link.close()
    say("closed")


# --- fork -----------------------------------------------------------------------------------------


def fork_during_a_handshake(url: str) -> None:
    """Forks while a newcomer has not introduced itself; the child outlives the parent."""
    listener = proclink.listen(url)
    endpoint: Any = listener._binding._endpoint
    while not endpoint._newcomers:
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        hear()  # until the test ends it
        os._exit(0)
    say(pid)
    time.sleep(LONG)


def fork_with_names_in_memory() -> None:
    """A forked child sees none of its parent's memory:// names."""
    with proclink.bind("memory://name"):
        pid = os.fork()
        if pid == 0:
            try:
                proclink.connect("memory://name", timeout=0)
            except proclink.NoServer:
                with proclink.bind("memory://name") as own, proclink.connect(own.address) as link:
                    link.send(b"own")
                    say(own.recv(timeout=LONG).decode())
            os._exit(0)
        os.waitpid(pid, 0)
    say("closed")


if __name__ == "__main__":
    run(globals())
