"""What the other processes do. Run as ``python -m faults.roles FUNCTION ARGUMENTS``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import proclink
from proclink._aside import reports
from proclink._registry import claim

LONG = 60.0


def say(thing: object) -> None:
    """Tells the parent something."""
    os.write(1, json.dumps(thing).encode() + b"\n")


def hear() -> Any:
    """Waits for what the parent says; ``None`` when it is gone."""
    line = sys.stdin.buffer.readline()
    return json.loads(line) if line else None


def numbered(number: int, size: int = 100) -> bytes:
    """A message that can be recognized."""
    return number.to_bytes(8, "little") * (size // 8)


# --- peers ----------------------------------------------------------------------------------------


def send_some(url: str, count: int, then: str) -> None:
    """Sends messages, and then ``wait``s, ``leave``s without close, ``exit``s or ``close``s."""
    link = proclink.connect(url, timeout=LONG)
    for number in range(count):
        link.send(numbered(number), timeout=LONG)
    say("sent")
    if then == "wait":
        hear()
    elif then == "leave":
        os._exit(0)
    elif then == "close":
        link.close()


def send_with_pauses(url: str, count: int) -> None:
    """Sends messages with pauses about as long as a thread takes to wake."""
    chance = random.Random(7)
    with proclink.connect(url, timeout=LONG) as link:
        for number in range(count):
            link.send(number.to_bytes(4, "little") + bytes(number * 7 % 3000), timeout=LONG)
            pause = time.perf_counter() + chance.random() * 3e-5
            while time.perf_counter() < pause:
                pass
        hear()


def send_on_and_on(url: str, step: int = 80) -> None:
    """Sends until it is killed, each message longer than the last by ``step``, up to a hundred."""
    with proclink.connect(url, timeout=LONG) as link:
        number = 0
        while True:
            link.send(numbered(number, 8 + number % 100 * step), timeout=LONG)
            number += 1


def send_huge(url: str, count: int) -> None:
    """Sends a few messages, and then one that fills everything there is."""
    with proclink.connect(url, timeout=LONG) as link:
        for number in range(count):
            link.send(numbered(number), timeout=LONG)
        link.send(bytes(60_000_000), timeout=LONG)


def receive_nothing(url: str) -> None:
    """Connects and does nothing."""
    with proclink.connect(url, timeout=LONG):
        say("connected")
        hear()


def receive_part(url: str) -> None:
    """Receives one message and does nothing more."""
    with proclink.connect(url, timeout=LONG) as link:
        link.recv(timeout=LONG)
        say("received")
        hear()


def echo_once(url: str) -> None:
    """Answers one message and waits to be killed."""
    with proclink.connect(url, timeout=LONG) as link:
        say("connected")
        link.send(b"from %d" % os.getpid(), timeout=LONG)
        say(link.recv(timeout=LONG).decode())
        hear()


def echo_once_in_each(url: str, count: int) -> None:
    """Forks, one after another, processes that do the same; tells when each is gone."""
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            echo_once(url)
            os._exit(0)
        os.waitpid(pid, 0)
        say("gone")


def serve(url: str, how: str = "bind") -> None:
    """Owns an address, tells it, and waits."""
    with getattr(proclink, how)(url) as server:
        say(server.address)
        hear()


def serve_messages(url: str, count: int) -> None:
    """Sends messages to whoever connects, and waits."""
    with proclink.bind(url) as link:
        say(link.address)
        for number in range(count):
            link.send(numbered(number), timeout=LONG)
        say("sent")
        hear()


def send_one(url: str, text: str) -> None:
    """Sends one message and closes."""
    with proclink.connect(url, timeout=LONG) as link:
        link.send(text.encode(), timeout=LONG)


# --- endings --------------------------------------------------------------------------------------


def end_again_and_again(url: str) -> None:
    """Connects and ends, each time as ordered, in a process of its own."""
    while (order := hear()) is not None:
        pid = os.fork()
        if pid == 0:
            try:
                _end(url, *order)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        say(os.waitstatus_to_exitcode(status))


def _end(url: str, how: str, busy: bool, patience: float) -> None:
    link = proclink.connect(url, timeout=LONG)
    threads = []
    if how == "closes by signal":
        signal.signal(signal.SIGUSR1, lambda *_: link.close(patience))
        say(os.getpid())
        _on_and_on(lambda: link.send(bytes(1000)) if busy else link.recv())
    else:
        if busy:
            threads.append(threading.Thread(target=_on_and_on, args=[link.recv], daemon=True))
        if how == "closes while it sends":
            sending = threading.Thread(
                target=_on_and_on, args=[lambda: link.send(bytes(1000))], daemon=True
            )
            threads.append(sending)
        for thread in threads:
            thread.start()
        say(os.getpid())
        hear()
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how != "leaves":
        link.close(patience)
        for thread in threads:
            thread.join()
    os._exit(0)


def _on_and_on(call: Callable[[], object]) -> None:
    with contextlib.suppress(proclink.LinkClosed):
        while True:
            call()


# --- Ctrl-C ---------------------------------------------------------------------------------------


def interrupted(url: str, call: str, spin: Any, rounds: int) -> None:
    """Blocks in a call, is interrupted, and uses the link afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if call == "accept":
        with proclink.listen(url, spin=spin) as listener:
            say(listener.address)
            for _ in range(rounds):
                _interrupt(listener.accept)
            link = listener.accept(timeout=LONG)
    elif call == "connect":
        for _ in range(rounds):
            _interrupt(lambda: proclink.connect(url, timeout=LONG, spin=spin))
        link = proclink.connect(url, timeout=LONG, spin=spin)
    else:
        link = proclink.connect(url, timeout=LONG, spin=spin)
        say("connected")
        with contextlib.suppress(proclink.TimedOut):
            while call != "recv":
                link.send(bytes(4000), timeout=0.05)
        calls: dict[str, Callable[[], object]] = {
            "recv": link.recv,
            "send": lambda: _send_on(link),
            "huge send": lambda: link.send(b"\xff" * 60_000_000),
            "send_many": lambda: link.send_many([bytes(4000)] * 20_000),
        }
        for _ in range(rounds):
            _interrupt(calls[call])
    with link:
        say("used again")
        link.send(b"after", timeout=LONG)
        say(link.recv(timeout=LONG).decode())


def _send_on(link: proclink.Link) -> None:
    while True:
        link.send(bytes(4000))


def _interrupt(call: Callable[[], object]) -> None:
    say("blocking")
    try:
        call()
        say("returned")
    except KeyboardInterrupt:
        say("interrupted")


# --- fork -----------------------------------------------------------------------------------------


def fork_with_a_link(url: str) -> None:
    """A forked child must not use the parent's link, and its parent can."""
    link = proclink.connect(url, timeout=LONG)
    calls: list[Callable[[], object]] = [
        lambda: link.send(b"x", timeout=1),
        lambda: link.send_many([b"x"], timeout=1),
        lambda: link.loan(8, timeout=1),
        lambda: link.recv(timeout=1),
        lambda: link.recv_many(timeout=1),
        lambda: link.recv_into(bytearray(8), timeout=1),
        lambda: link.recv_view(timeout=1),
    ]
    pid = os.fork()
    if pid == 0:
        names = []
        for call in calls:
            try:
                call()
                names.append("nothing")
            except Exception as error:
                names.append(type(error).__name__)
        link.close()
        say(names)
        os._exit(0)
    os.waitpid(pid, 0)
    link.send(b"from the parent", timeout=LONG)
    say(link.recv(timeout=LONG).decode())
    link.close()


def fork_with_a_server(url: str, how: str) -> None:
    """A forked child holds on to nothing of its parent's server."""
    server = getattr(proclink, how)(url)
    say(server.address)
    if os.fork() == 0:
        call = server.recv if how == "bind" else server.accept
        try:
            call(timeout=1)
        except Exception as error:
            say(type(error).__name__)
        server.close()
        say(["child", os.getpid()])
        hear()
        os._exit(0)
    signal.pause()


def fork_and_wait(url: str) -> None:
    """Links, forks a child that lives on, and waits to be killed."""
    link = proclink.connect(url, timeout=LONG)
    link.send(b"hello", timeout=LONG)
    pid = os.fork()
    if pid == 0:
        hear()
        os._exit(0)
    say(pid)
    signal.pause()


class _Leave(Exception):
    """Leaves a block."""


def fork_holding(url: str, what: str) -> None:
    """The child leaves a block that looks at the ring; then so does the parent."""
    with proclink.connect(url, timeout=LONG) as link:
        pid = -1
        try:
            with link.recv_view(timeout=LONG) if what == "view" else link.loan(8) as memory:
                pid = os.fork()
                if pid == 0 and what == "loan to discard":
                    raise _Leave
                if pid != 0:
                    _, status = os.waitpid(pid, 0)
                    say(os.waitstatus_to_exitcode(status))
                    if what != "view":
                        memory[:] = b"12345678"
        except (_Leave, proclink.ForkedLink):
            pass
        if pid == 0:
            os._exit(0)
        link.send(b"unharmed", timeout=LONG)


def fork_in_memory(url: str) -> None:
    """A child that inherits both ends of a link in memory."""
    with proclink.bind(url) as server, proclink.connect(url, timeout=LONG) as client:
        pid = os.fork()
        if pid == 0:
            names = []
            for call in (lambda: client.send(b"x", timeout=0), lambda: server.recv(timeout=0)):
                try:
                    call()
                    names.append("nothing")
                except Exception as error:
                    names.append(type(error).__name__)
            say(names)
            os._exit(0)
        os.waitpid(pid, 0)
        client.send(b"unharmed")
        say(server.recv(timeout=LONG).decode())


def fork_and_forget_the_link(url: str) -> None:
    """The child's own memory survives that it lets go of its parent's link."""
    import mmap

    link = proclink.connect(url, timeout=LONG)
    pid = os.fork()
    if pid == 0:
        own = [mmap.mmap(-1, 64 * 1024) for _ in range(2000)]
        del link
        for memory in own:
            memory[0] = 1
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say(os.waitstatus_to_exitcode(status))
    link.close()


# --- the end of the interpreter -------------------------------------------------------------------


class _Slow:
    """Takes its time when the interpreter clears the modules."""

    def __init__(self) -> None:
        self._sleep = time.sleep

    def __del__(self) -> None:
        self._sleep(0.3)


def end_with(what: str, url: str) -> None:
    """Ends with things left open."""
    server = proclink.bind(url)
    client = proclink.connect(server.address, timeout=LONG)
    if what == "closed":
        client.close()
        server.close()
    elif what == "waiting thread":
        threading.Thread(target=client.recv, daemon=True).start()
    elif what == "busy threads":

        def receive() -> None:
            while True:
                with contextlib.suppress(proclink.TimedOut):
                    server.recv(timeout=0.001)

        def send() -> None:
            while True:
                client.send(bytes(100))

        for work in (receive, send):
            threading.Thread(target=work, daemon=True).start()
        globals()["slow"] = _Slow()
    elif what == "listener":
        globals()["listener"] = proclink.listen(url + "-2")
    globals()["kept"] = (server, client)
    say("ending")


def fork_beside_senders(url: str, forks: int) -> None:
    """Forks while threads contend for a direction; each child uses the link and is told at once."""
    link = proclink.connect(url, timeout=LONG)

    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            link.send(b"x", timeout=LONG)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    statuses = []
    for _ in range(forks):
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(LONG) // 6)  # ends a child that waits
            try:
                link.send(b"from the child", timeout=0)
            except proclink.ForkedLink:
                os._exit(0)
            os._exit(1)
        statuses.append(os.waitpid(pid, 0)[1])
    over.set()
    for sender in senders:
        sender.join()
    link.close()
    say(statuses)


# --- names ----------------------------------------------------------------------------------------


def claim_in_rounds(path: str) -> None:
    """Claims when told to, says whether that worked, and lets go when told to."""
    while hear() is not None:
        held = None
        try:
            held = claim(Path(path), "pipe://race")
            say(["owner", os.getpid()])
        except proclink.AddressInUse as error:
            say(["in use", error.pid])
        hear()
        if held is not None:
            held.release()
        say("released")


# --- limits ---------------------------------------------------------------------------------------


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self.came = threading.Condition()

    @property
    def texts(self) -> list[str]:
        """What was logged so far; records come in a thread of their own."""
        reports.call(lambda: None)
        return self._texts

    def emit(self, record: logging.LogRecord) -> None:
        with self.came:
            self._texts.append(record.getMessage())
            self.came.notify_all()

    def wait_for(self, text: str, count: int = 1) -> bool:
        with self.came:
            return self.came.wait_for(lambda: sum(text in t for t in self._texts) >= count, LONG)


def _recording() -> tuple[logging.Logger, _Records]:
    logger = logging.getLogger("recorded")
    logger.propagate = False
    records = _Records()
    logger.addHandler(records)
    return logger, records


def serve_within_file_size(url: str, limit: int) -> None:
    """Serves although no file may be as long as a ring."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    logger, records = _recording()
    with proclink.bind(url, logger=logger) as server:
        say(server.address)
        records.wait_for("shared memory")
        say(records.texts)
        hear()


def serve_without_descriptors(url: str, pause: float, errors: int) -> None:
    """Runs out of descriptors, tells of the errors after that many, and has some again later."""
    import asyncio  # what a bound end needs; all other roles start without

    from proclink._supervisor import supervisor
    from proclink.transports import _accepting

    _accepting._PAUSE_WITHOUT_RESOURCES = pause
    logger, records = _recording()
    with proclink.listen(url, logger=logger) as listener:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        hoard = []
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        say(listener.address)
        assert records.wait_for("cannot accept", errors)
        for _ in range(100):  # a loop that looked for newcomers in each turn would tell of them
            supervisor().run(asyncio.sleep(0))
        say(len(records.texts))
        for descriptor in hoard:
            os.close(descriptor)
        if hear() == "leave":
            return
        with listener.accept(timeout=LONG) as link:
            say(link.recv(timeout=LONG).decode())
            hear()


# --- users ----------------------------------------------------------------------------------------


def serve_as(user: int, url: str) -> None:
    """Owns an address as another user."""
    _become(user)
    serve(url)


def connect_as(user: int, url: str) -> None:
    """Tries to connect as another user; tells what came of it."""
    _become(user)
    try:
        proclink.connect(url, timeout=LONG).close()
        say("connected")
    except proclink.ProclinkError as error:
        say(type(error).__name__)


def introduce_as(user: int, path: str, hello: str) -> None:
    """Introduces itself as another user, without looking who is there."""
    import socket

    _become(user)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LONG)
        sock.connect(path)
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(bytes.fromhex(hello))
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(64):
                data += part
        say(data.hex())


def serve_as_nobody_known(user: int, url: str) -> None:
    """Owns an address as a user without an entry anywhere and without a name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)
    _become(user)
    with proclink.bind(url) as server:
        say(server.address)


def _become(user: int) -> None:
    # What is imported late is imported now: the other user may not read where it lies.
    with proclink.bind("pipe://warm") as server, proclink.connect("pipe://warm") as client:
        client.send(b"warm")
        server.recv(timeout=LONG)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def run_forked(
    role: Callable[..., object],
    arguments: tuple[object, ...],
    environment: dict[str, str],
    streams: list[Connection],
) -> None:
    """Runs a function in a process that was forked for it."""
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = open(0)  # noqa: SIM115 - multiprocessing has put another in its place
    role(*arguments)


def run(functions: dict[str, Any]) -> None:
    """Runs the function that the command line names, with its arguments."""
    functions[sys.argv[1]](*json.loads(sys.argv[2]))


if __name__ == "__main__":
    run(globals())
