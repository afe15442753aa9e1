"""Processes that fork or bind where code of others runs. Run like ``faults.roles``."""

from __future__ import annotations

import os
from collections.abc import Callable

# Registered before proclink is imported, so called in a child before whatever it registers.
_in_parent: list[Callable[[], object]] = []
_in_child: list[Callable[[], object]] = []
os.register_at_fork(
    after_in_parent=lambda: [call() for call in _in_parent],
    after_in_child=lambda: [call() for call in _in_child],
)

import contextlib  # noqa: E402
import ctypes  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import proclink  # noqa: E402
from faults.roles import LONG, hear, run, say  # noqa: E402
from proclink import _aside  # noqa: E402


def _forked(in_child: Callable[[], object]) -> int:
    """How a child ends that runs a function: 0 where it returns."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LONG) // 6)  # it ends a child that waits
        try:
            in_child()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _told(call: Callable[[], object]) -> None:
    """The call of an inherited link."""
    try:
        call()
    except proclink.ForkedLink:
        return
    raise AssertionError("the child was not told")


def _pairs(url: str, count: int) -> list[tuple[proclink.Link, proclink.Link]]:
    listener = proclink.listen(url)
    globals()["listener"] = listener
    return [
        (proclink.connect(listener.address, timeout=LONG), listener.accept(timeout=LONG))
        for _ in range(count)
    ]


def _exchange(one: proclink.Link, other: proclink.Link) -> None:
    one.send(b"still there", timeout=LONG)
    if other.recv(timeout=LONG) != b"still there":
        raise AssertionError("something else came")


# --- the child ------------------------------------------------------------------------------------


class _Cycle:
    """Only the garbage collector frees it."""

    def __init__(self, *things: object) -> None:
        self.things = things
        self.me = self


def fork_beside_garbage(url: str, forks: int) -> None:
    """Each child finds closed links that wait to be collected."""
    pairs = _pairs(url, 200)
    statuses = set()
    for _ in range(forks):
        closed = proclink.connect(pairs[0][0].address, timeout=LONG)
        other = globals()["listener"].accept(timeout=LONG)
        closed.close()
        other.close()
        _Cycle(closed, other)
        del closed, other
        statuses.add(_forked(lambda: _told(lambda: pairs[0][0].send(b"x", timeout=0))))
    _exchange(*pairs[0])
    say(sorted(statuses))


def fork_beside_thread_locals(url: str, what: str, forks: int) -> None:
    """Another thread keeps a link, or a view of one, which are dropped first in a child."""
    statuses = set()
    for _ in range(forks):
        ((client, server),) = _pairs(url, 1)
        server.send(bytes(500), timeout=LONG)
        own = threading.local()
        ready, go = threading.Event(), threading.Event()
        links = [client]
        del client

        def keep(
            own: threading.local = own,
            links: list[proclink.Link] = links,
            ready: threading.Event = ready,
            go: threading.Event = go,
        ) -> None:
            own.link = links.pop()
            own.view = own.link.recv_view(timeout=LONG) if what == "view" else None
            ready.set()
            go.wait(LONG)
            own.view = None
            with own.link:
                own.link.send(b"still there", timeout=LONG)

        thread = threading.Thread(target=keep)
        thread.start()
        ready.wait(LONG)
        statuses.add(_forked(lambda: time.sleep(0.01)))
        go.set()
        if server.recv(timeout=LONG) != b"still there":
            raise AssertionError("something else came")
        thread.join()
        server.close()
        globals()["listener"].close()
    say(sorted(statuses))


def fork_in_a_wait(what: str, url: str) -> None:
    """A signal handler forks; the child comes back into the wait, beside threads that also wait."""
    if what == "bound":
        link = proclink.bind(url)
    elif what == "connected":
        ((link, peer),) = _pairs(url, 1)
        globals()["peer"] = peer
    calls: dict[str, Callable[[float | None], object]]
    if what == "listener":
        calls = {"accept": proclink.listen(url).accept}
    else:
        calls = {"recv": link.recv, "send": lambda timeout: link.send(bytes(4_000_000), timeout)}

    def wait_too(call: Callable[[float | None], object]) -> None:
        while True:
            with contextlib.suppress(proclink.TimedOut):
                call(0.00002)

    statuses = []
    for call in calls.values():
        for _ in range(2):
            threading.Thread(target=wait_too, args=[call], daemon=True).start()
        for _ in range(10):
            statuses.append(_fork_in(call))
    say(sorted(set(statuses)))
    os._exit(0)


class _InParent(Exception):
    pass


def _fork_in(call: Callable[[float | None], object]) -> int:
    child = 0

    def fork(*_: object) -> None:
        nonlocal child
        child = os.fork()
        if child != 0:
            raise _InParent
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(LONG) // 6)

    signal.signal(signal.SIGALRM, fork)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        while True:  # there may be room still
            call(None)
    except proclink.ForkedLink:
        os._exit(0)
    except _InParent:
        pass
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_without_the_step_before(url: str) -> None:
    """As a program in C does that embeds Python."""
    ((client, server),) = _pairs(url, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        _told(lambda: client.send(b"x", timeout=0))
        os._exit(0 if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()) else 1)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    _exchange(client, server)


# --- hooks ----------------------------------------------------------------------------------------


def reopen_in_hooks(url: str) -> None:
    """A hook that runs before proclink's drops what the child inherits, and opens its own."""
    with proclink.bind(url) as bound, proclink.connect(bound.address, timeout=LONG) as client:
        _exchange(client, bound)
        opened: list[proclink.Link] = []

        def begin_anew() -> None:
            for link in (bound, client):
                _told(lambda link=link: link.send(b"x", timeout=0))  # type: ignore[misc]
                link.close()
            own = proclink.bind("pipe://child")
            opened.extend([own, proclink.connect(own.address, timeout=LONG)])

        _in_child.append(begin_anew)
        _in_parent.append(lambda: opened.append(proclink.bind("pipe://parent")))
        start = time.monotonic()
        status = _forked(lambda: _exchange(*opened))
        print(f"forked in {time.monotonic() - start:.2f} s", file=sys.stderr)
        say(status)
        _exchange(client, bound)
        _exchange(bound, client)
        opened[0].close()


def _unended() -> list[str]:
    """Which signals a process would block that is started here."""
    code = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def start_processes_anywhere() -> None:
    """In a log handler, and in a thread that a hook starts."""
    blocked: list[list[str]] = []

    class Starting(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            blocked.append(_unended())

    logger = logging.getLogger("starting")
    logger.setLevel(logging.INFO)
    logger.addHandler(Starting())

    def in_thread() -> None:
        thread = threading.Thread(target=lambda: blocked.append(_unended()))
        thread.start()
        thread.join()

    with proclink.bind("pipe://starting", logger=logger):
        _aside.reports.call(lambda: None)
        _in_parent.append(in_thread)
        _forked(lambda: None)
    _aside.reports.call(lambda: None)
    say(blocked)


# --- locks of others ------------------------------------------------------------------------------


def bind_under_locks(url: str) -> None:
    """The first bind of a process, in a thread that holds locks of Python's: it interrupted one."""
    import tempfile

    with threading._active_limbo_lock, tempfile._once_lock:  # type: ignore[attr-defined]
        bound = proclink.bind(url)
    with bound, proclink.connect(bound.address, timeout=LONG) as client:
        _exchange(client, bound)
    say("bound")


def note_imports(url: str) -> None:
    """Which modules are imported in threads of the library."""
    main = threading.get_ident()
    found: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import" and threading.get_ident() != main:
            found.append(str(arguments[0]))

    sys.addaudithook(note)
    ((client, server),) = _pairs(url, 1)
    _exchange(client, server)
    for thing in (client, server, globals()["listener"]):
        thing.close()
    say(found)


class _Closes:
    def __init__(self, link: proclink.Link) -> None:
        self.link = link
        self.me = self

    def __del__(self) -> None:
        self.link.close(timeout=None)


def close_in_a_finalizer(thread: str) -> None:
    """The link's peer does not read, and the collector runs in a thread that others wait for."""
    from proclink._supervisor import supervisor

    ((client, _peer),) = _pairs("pipe://slow", 1)
    with contextlib.suppress(proclink.TimedOut):
        client.send(bytes(10_000_000), timeout=0.05)  # begun, and given up
    gc.disable()
    _Closes(client)
    del client
    if thread == "errands":
        _aside.errands.later(gc.collect)
    else:
        supervisor().loop.call_soon_threadsafe(gc.collect)
        supervisor().loop.call_soon_threadsafe(gc.collect)
    proclink.bind("pipe://other").close()
    say("bound")
    hear()
    os._exit(0)


def bind_at_the_very_end() -> None:
    """An object binds that is collected when the interpreter ends."""
    globals()["listener"] = proclink.listen("pipe://early")

    class Late:
        def __init__(self) -> None:
            self.me = self

        def __del__(
            self,
            bind: Callable[[str], proclink.Link] = proclink.bind,
            say: Callable[[object], None] = say,
        ) -> None:
            try:
                bind("pipe://late")
            except RuntimeError as error:
                say(str(error))

    Late()


if __name__ == "__main__":
    run(globals())
