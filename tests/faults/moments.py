"""Processes in which something happens at an awkward moment. Run like ``faults.roles``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import proclink
from faults.roles import LONG, hear, run, say
from proclink import _aside


class _Interrupted(Exception):
    pass


class _Interrupter:
    """A signal handler that raises once, some time after the beginning of a call."""

    def __init__(self) -> None:
        self._armed = False
        self.interrupted = 0
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise _Interrupted

    def run(self, seconds: float, call: Callable[[], object]) -> None:
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            self._armed = False
        except _Interrupted:
            self.interrupted += 1


def _settle() -> None:
    for aside in (_aside.errands, _aside.reports):
        aside.call(lambda: None)


def close_and_be_interrupted(kind: str, url: str, attempts: int) -> None:
    """Says how often, and how often the name was not free soon after."""
    open_: Callable[[str], Any] = proclink.bind if kind == "bind" else proclink.listen
    interrupter = _Interrupter()
    stuck = 0
    with proclink.bind(url) as first:
        address = first.address
    for attempt in range(attempts):
        thing = open_(address)
        interrupter.run(0.000002 + attempt % 50 * 0.000004, thing.close)
        del thing
        _settle()
        try:
            proclink.bind(address).close()
        except proclink.AddressInUse:
            stuck += 1
            address = f"{url}{attempt}" if "tcp" not in url else url
    say([interrupter.interrupted, stuck])


def connect_in_memory_and_be_interrupted(attempts: int) -> None:
    """Says how often, and how often nobody could connect any more."""
    interrupter = _Interrupter()
    stuck = 0
    for attempt in range(attempts):
        with proclink.bind("memory://interrupted") as server:
            interrupter.run(
                0.000002 + attempt % 50 * 0.000002,
                lambda: proclink.connect("memory://interrupted", timeout=0).close(),
            )
            _settle()
            with contextlib.suppress(proclink.TimedOut):
                server.recv(timeout=0)
            try:
                proclink.connect(server.address, timeout=0).close()
            except proclink.Busy:
                stuck += 1
    say([interrupter.interrupted, stuck])


def fork_beside_signals(url: str, forks: int, links: int) -> None:
    """Says how many children, each sent a signal at once, still had links of their parent."""
    parent = os.getpid()
    came = False

    def end(*_: object) -> None:
        nonlocal came
        if os.getpid() != parent and not came:
            came = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGUSR1, end)
    with proclink.listen(url) as listener:
        pairs = [
            (proclink.connect(listener.address, timeout=LONG), listener.accept(timeout=LONG))
            for _ in range(links)
        ]
        own = [link for pair in pairs for link in pair]
        keeping = 0
        for attempt in range(forks):
            reading, writing = os.pipe()
            try:
                pid = os.fork()
            except KeyboardInterrupt:
                pid = 0
            if pid == 0:
                with contextlib.suppress(KeyboardInterrupt):
                    end_of_patience = time.monotonic() + LONG
                    while not came and time.monotonic() < end_of_patience:
                        time.sleep(0.001)  # it may have come in a hook of somebody else's
                kept = sum(link.state is proclink.State.CONNECTED for link in own)
                os.write(writing, b"%d\n" % kept)
                os._exit(0)
            os.close(writing)
            time.sleep(attempt % 40 * 0.00005)  # any moment will do
            os.kill(pid, signal.SIGUSR1)
            while not select.select([reading], [], [], 0.05)[0]:
                os.kill(pid, signal.SIGUSR1)  # Python forgets what comes at the very first
            with open(reading) as lines:
                keeping += int(lines.read() or "0") > 0
            os.waitpid(pid, 0)
        for link in own:
            link.close()
    say(keeping)


def fork_at_first_use(url: str, other: str, after: float) -> None:
    """Forks while a thread uses a scheme for the first time; the child uses it, too."""
    thread = threading.Thread(target=lambda: proclink.listen(url).close())
    thread.start()
    time.sleep(after)  # any moment will do
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LONG))  # it outlives nobody's patience
        proclink.listen(other).close()
        say("listened")
        os._exit(0)
    thread.join()
    hear()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def bind_from_threads(scheme: str, count: int) -> None:
    """The first binds of a process, all at once. Says which threads there are then."""
    together = threading.Barrier(count)
    done = threading.Barrier(count + 1)
    hold = threading.Event()

    def bind(number: int) -> None:
        together.wait(LONG)
        url = "tcp://127.0.0.1:0" if scheme == "tcp" else f"{scheme}://from-thread-{number}"
        with proclink.bind(url):
            done.wait(LONG)
            hold.wait(LONG)

    threads = [
        threading.Thread(target=bind, args=(number,), name="user") for number in range(count)
    ]
    for thread in threads:
        thread.start()
    done.wait(LONG)
    _settle()
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    say(sorted(name for name in names if "proclink" in name))
    hold.set()
    for thread in threads:
        thread.join()


def poll_for_a_blocked_signal(url: str) -> None:
    """Blocks a signal after a bind, and asks for it now and then."""
    with proclink.bind(url, logger=_heard()):
        _aside.reports.call(lambda: None)  # a log handler runs with the signals of before
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        say("blocked")
        found = signal.sigtimedwait({signal.SIGTERM}, LONG)
        say(None if found is None else found.si_signo)


def _heard() -> Any:
    import logging

    logger = logging.getLogger("heard")  # so that there is a thread for reports, too
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def bind_beside_a_policy(url: str) -> None:
    """The process's event loops are a GUI's, which run in the main thread only."""
    import asyncio

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            raise RuntimeError("only in the main thread")

    asyncio.set_event_loop_policy(Policy())
    with (
        proclink.bind(url) as server,
        proclink.connect(server.address, timeout=LONG) as client,
    ):
        client.send(b"bound", timeout=LONG)
        say(server.recv(timeout=LONG).decode())


def fork_in_an_errand() -> None:
    """A signal handler forks while a call waits for its errand. The child comes out of the call."""
    entered, go = threading.Event(), threading.Event()
    children = []

    def fork(*_: object) -> None:
        children.append(os.fork())
        if children[-1] != 0:
            go.set()

    def errand() -> None:
        entered.set()
        go.wait(LONG)

    signal.signal(signal.SIGUSR1, fork)
    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        entered.wait(LONG)
        signal.pthread_kill(main, signal.SIGUSR1)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        _aside.errands.call(errand)
    except proclink.ForkedLink:
        say("told")
        os._exit(0)
    say("done")
    hear()
    os.kill(children[0], signal.SIGKILL)
    os.waitpid(children[0], 0)


def serve_with_sigpipe(url: str) -> None:
    """Serves with SIGPIPE as the system has it, as a program in a pipeline does."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with proclink.listen(url) as listener:
        say(listener.address)
        with listener.accept(timeout=LONG) as link:
            say(link.recv(timeout=LONG).decode())


if __name__ == "__main__":
    run(globals())
