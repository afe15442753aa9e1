"""Ping-pong between two processes: proclink beside what else is at hand.

One run measures every subject in turn, round after round, so that drift of the
machine hits all of them alike. Two fresh processes measure a subject, each
pinned to its own core (or both to one): one sends a message of fixed size, the
other sends it back. Each trip there and back is timed by itself, nothing is
subtracted, and every echo is compared with what was sent. To repeat it:

    python benchmarks/peers.py --size 16 --rounds 7 --seconds 1 --json peers.json
    python benchmarks/peers.py --placement shared

tachyon-ipc 0.5.1 and iceoryx2 0.10.0 are measured where they are installed, and
named as absent where not. The ratio is a subject's median over that of proclink
of the same family (pipe, tcp, shm) with its default spin, taken in each round;
the table has the median of these.
"""
# ruff: noqa: D101, D102, D103

from __future__ import annotations

import argparse
import array
import ctypes
import fnmatch
import importlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, ClassVar, NamedTuple

PATIENCE = 20.0  # seconds that the processes of a subject get for starting and for ending
WARM_UP = 0.2  # seconds of trips that are not counted, for each second of those that are


class Channel(NamedTuple):
    """One end of a connection, as the two loops use it."""

    send: Callable[[bytes], Any]
    recv: Callable[[], bytes]
    close: Callable[[], Any]


Listening = tuple[Any, Callable[[], Channel]]  # the address, and what waits for the client


@dataclass(frozen=True)
class Subject:
    """What is measured; path is free for a socket of its own, size is known to both ends."""

    name: str
    family: str
    module: ClassVar[str] = ""
    distribution: ClassVar[str] = ""

    def server(self, path: str, size: int) -> Listening:
        raise NotImplementedError

    def client(self, path: str, size: int, address: Any) -> Channel:
        raise NotImplementedError

    def load(self) -> Any:
        return importlib.import_module(self.module) if self.module else None


class Sockets(Subject):
    def server(self, path: str, size: int) -> Listening:
        unix = self.family == "pipe"
        listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        listener.bind(path if unix else ("127.0.0.1", 0))
        listener.listen(1)
        return listener.getsockname(), lambda: self.channel(listener.accept()[0], size)

    def client(self, path: str, size: int, address: Any) -> Channel:
        sock = socket.socket(socket.AF_UNIX if self.family == "pipe" else socket.AF_INET)
        sock.connect(address)
        return self.channel(sock, size)

    def channel(self, sock: socket.socket, size: int) -> Channel:
        if self.family == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def recv() -> bytes:
            data = sock.recv(size)
            while len(data) < size:
                more = sock.recv(size - len(data))
                if not more:
                    raise EOFError("the other end closed the socket")
                data += more
            return data

        return Channel(sock.sendall, recv, sock.close)


class Connections(Subject):
    def server(self, path: str, size: int) -> Listening:
        listener = connection.Listener(path if self.family == "pipe" else ("127.0.0.1", 0))
        return listener.address, lambda: self.channel(listener.accept())

    def client(self, path: str, size: int, address: Any) -> Channel:
        return self.channel(connection.Client(address))

    def channel(self, conn: Any) -> Channel:
        return Channel(conn.send_bytes, conn.recv_bytes, conn.close)


class Tachyon(Subject):
    """A bus for each direction, used as documented: send, and iteration."""

    module, distribution = "tachyon", "tachyon-ipc"

    def server(self, path: str, size: int) -> Listening:
        capacity = max(1 << 16, 1 << (64 * size).bit_length())  # space is given back by the batch

        def accept() -> Channel:
            there = self.bus("listen", path + ".there", capacity)
            return self.channel(self.bus("listen", path + ".back", capacity), there)

        return None, accept

    def client(self, path: str, size: int, address: Any) -> Channel:
        until = time.monotonic() + PATIENCE

        def dial(path: str) -> Any:
            while True:  # listen makes the socket and waits, so it may not be there yet
                try:
                    return self.bus("connect", path)
                except Exception:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.005)

        there = dial(path + ".there")
        return self.channel(there, dial(path + ".back"))

    def bus(self, call: str, *values: Any) -> Any:
        return getattr(self.load().Bus, call)(*values)

    def channel(self, out: Any, back: Any) -> Channel:
        messages = iter(back)
        return Channel(out.send, lambda: next(messages).data, lambda: None)


class TachyonGuards(Tachyon):
    """The same with the lower calls that send and iteration are made of."""

    def bus(self, call: str, *values: Any) -> Any:
        bus = self.load().TachyonBus()
        getattr(bus, call)(*values)
        return bus

    def channel(self, out: Any, back: Any) -> Channel:
        acquire_tx, flush, acquire_rx = out.acquire_tx, out.flush, back.acquire_rx

        def send(data: bytes) -> None:
            size = len(data)
            with acquire_tx(size) as guard:
                with memoryview(guard) as view:
                    view[:size] = data
                guard.actual_size = size
            flush()

        def recv() -> bytes:
            with acquire_rx() as guard, memoryview(guard) as view:
                return bytes(view)

        return Channel(send, recv, lambda: None)


class Iceoryx2(Subject):
    """A publish-subscribe service for each direction; receive is called till it has something."""

    module, distribution = "iceoryx2", "iceoryx2"

    def server(self, path: str, size: int) -> Listening:
        channel = self.channel(path + "/back", path + "/there", size)
        return None, lambda: channel

    def client(self, path: str, size: int, address: Any) -> Channel:
        return self.channel(path + "/there", path + "/back", size)

    def channel(self, out: str, back: str, size: int) -> Channel:
        iox2 = self.load()
        iox2.set_log_level_from_env_or(iox2.LogLevel.Error)
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)

        def service(name: str) -> Any:
            builder = node.service_builder(iox2.ServiceName.new(name))
            return builder.publish_subscribe(iox2.Slice[ctypes.c_uint8]).open_or_create()

        subscriber = service(back).subscriber_builder().create()
        publisher = service(out).publisher_builder().initial_max_slice_len(size).create()
        loan, receive = publisher.loan_slice_uninit, subscriber.receive
        memmove, string_at = ctypes.memmove, ctypes.string_at

        def send(data: bytes) -> None:
            sample = loan(size)
            memmove(sample.payload_ptr, data, size)
            sample.assume_init().send()

        def recv() -> bytes:
            while (sample := receive()) is None:
                pass
            return string_at(sample.payload_ptr, size)

        return Channel(send, recv, lambda: (publisher.delete(), subscriber.delete()))


@dataclass(frozen=True)
class Proclink(Subject):
    spin: int | None = None  # microseconds; None leaves it to proclink
    module, distribution = "proclink", "proclink"

    def server(self, path: str, size: int) -> Listening:
        name = path.strip("/").replace("/", "-")
        urls = {"pipe": f"pipe://{path}", "tcp": "tcp://127.0.0.1:0", "shm": f"shm://{name}"}
        link = self.load().bind(urls[self.family], **self.options())
        return link.address, lambda: Channel(link.send, link.recv, link.close)

    def client(self, path: str, size: int, address: Any) -> Channel:
        link = self.load().connect(address, **self.options())
        return Channel(link.send, link.recv, link.close)

    def options(self) -> dict[str, int]:
        return {} if self.spin is None else {"spin": self.spin}


SUBJECTS: list[Subject] = [
    Sockets("socket-unix", "pipe"),
    Connections("multiprocessing-unix", "pipe"),
    Proclink("proclink-pipe", "pipe"),
    Proclink("proclink-pipe-spin0", "pipe", 0),
    Sockets("socket-tcp", "tcp"),
    Connections("multiprocessing-tcp", "tcp"),
    Proclink("proclink-tcp", "tcp"),
    Proclink("proclink-tcp-spin0", "tcp", 0),
    Tachyon("tachyon", "shm"),
    TachyonGuards("tachyon-guards", "shm"),
    Iceoryx2("iceoryx2", "shm"),
    Proclink("proclink-shm", "shm"),
]


def echo(channel: Channel, stop: bytes) -> None:
    send, recv = channel.send, channel.recv
    while (data := recv()) != stop:
        send(data)


def trips(channel: Channel, size: int, seconds: float) -> dict[str, float]:
    send, recv, now = channel.send, channel.recv, time.perf_counter_ns
    messages = [bytes([n]) + os.urandom(size - 1) for n in range(16)]  # none is the stop
    for duration in (WARM_UP * seconds, seconds):
        times, until = array.array("q"), now() + int(duration * 1e9)
        for message in itertools.cycle(messages):
            start = now()
            send(message)
            answer = recv()
            end = now()
            if answer != message:
                raise ValueError(f"sent {message[:32]!r}, got back {answer[:32]!r}")
            times.append(end - start)
            if end > until:
                break
    done = [ns / 1e3 for ns in sorted(times)]
    p99 = done[len(done) * 99 // 100]
    return {"trips": len(done), "median": statistics.median(done), "p99": p99, "min": done[0]}


def child(
    parent: Any, subject: Subject, path: str, size: int, seconds: float, core: int, *client: Any
) -> None:
    """Serve, or be the client if there is an address; report each step, start and end when told."""
    try:
        if hasattr(signal, "alarm"):  # ends the process should the parent be gone
            signal.alarm(int(2 * seconds + 4 * PATIENCE))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})
        subject.load()
        stop, result = b"\xff" * size, None
        if client:
            parent.send(("ready", None))
            parent.recv()
            channel = subject.client(path, size, *client)
            result = trips(channel, size, seconds)
            channel.send(stop)
        else:
            address, accept = subject.server(path, size)
            parent.send(("ready", address))
            parent.recv()
            channel = accept()
            echo(channel, stop)
        parent.send(("done", result))
        parent.recv()
        channel.close()
    except Exception as error:
        parent.send(("failed", f"{type(error).__name__}: {error}"))


def answers(conns: list[Any], patience: float) -> list[Any]:
    """What each child says next; the first failure is raised, and so is silence."""
    said: dict[Any, Any] = {}
    until = time.monotonic() + patience
    while missing := [conn for conn in conns if conn not in said]:
        ready: list[Any] = connection.wait(missing, max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no answer in {patience:.0f} s")
        for conn in ready:
            word, said[conn] = conn.recv()
            if word == "failed":
                raise RuntimeError(said[conn])
    return [said[conn] for conn in conns]


def measure(subject: Subject, size: int, seconds: float, cores: list[int]) -> dict[str, float]:
    """One round of one subject; the two processes are gone when it returns."""
    spawn = multiprocessing.get_context("spawn")
    processes: list[Any] = []
    conns: list[Any] = []
    address: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        try:
            for core in reversed(cores):  # the server, then the client with its address
                ours, theirs = spawn.Pipe()
                values = (theirs, subject, f"{folder}/link", size, seconds, core, *address)
                process = spawn.Process(target=child, args=values, daemon=True)
                process.start()
                processes.append(process)
                conns.append(ours)
                theirs.close()
                address = answers([ours], PATIENCE)
            for conn in conns:
                conn.send("start")
            result: dict[str, float] = answers(conns, 2 * seconds + PATIENCE)[1]
            for conn in conns:
                conn.send("close")
            for process in processes:
                process.join(PATIENCE)
            return result
        finally:
            for process in processes:
                for end in (process.terminate, process.kill):
                    if process.is_alive():
                        end()
                        process.join(2)


def found(subject: Subject) -> tuple[str, str]:
    """The version of what a subject needs, and if it is absent the reason."""
    if not subject.module:
        return "", ""
    try:
        subject.load()
        return importlib.metadata.version(subject.distribution), ""
    except importlib.metadata.PackageNotFoundError:
        return "unknown", ""
    except Exception as error:
        return "", f"absent: {type(error).__name__}: {error}"


def table(
    chosen: list[Subject],
    size: int,
    rounds: dict[str, list[dict[str, float]]],
    reasons: dict[str, str],
) -> list[dict[str, Any]]:
    print(f"\n{size} B there and back, in µs. Median and p99 are medians over the rounds,")
    print("low and high the least and greatest median of a round, min is of all trips.")
    print(f"{'subject':<22}{'median':>10}{'low':>10}{'high':>10}{'p99':>10}{'min':>10}{'ratio':>8}")
    rows: list[dict[str, Any]] = []
    for subject in chosen:
        row: dict[str, Any] = {"subject": subject.name, "family": subject.family, "size": size}
        rows.append(row)
        if reason := reasons.get(subject.name):
            row["reason"] = reason
            print(f"{subject.name:<22}  {reason}")
            continue
        own, base = rounds[subject.name], f"proclink-{subject.family}"
        medians = [one["median"] for one in own]
        row |= {"median": statistics.median(medians), "low": min(medians), "high": max(medians)}
        row["p99"] = statistics.median(one["p99"] for one in own)
        row["min"] = min(one["min"] for one in own)
        row |= {"ratio": None, "rounds": own}
        if base in rounds and base not in reasons:
            pairs = zip(medians, rounds[base], strict=True)
            row["ratio"] = statistics.median(median / one["median"] for median, one in pairs)
        numbers = "".join(f"{row[key]:10.2f}" for key in ("median", "low", "high", "p99", "min"))
        print(
            f"{subject.name:<22}{numbers}"
            + (f"{row['ratio']:8.2f}" if row["ratio"] else f"{'-':>8}")
        )
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ping-pong: proclink and its peers.")
    parser.add_argument("--size", type=int, nargs="+", default=[16], metavar="BYTES")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of one subject")
    parser.add_argument("--placement", choices=("own", "shared"), default="own")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="or a pattern")
    parser.add_argument("--json", metavar="FILE", help="write every round to FILE")
    options = parser.parse_args()
    if min(*options.size, options.rounds) < 1 or options.seconds <= 0:
        parser.error("--size, --rounds and --seconds must be above zero")
    names = [subject.name for subject in SUBJECTS]
    for pattern in options.only:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no subject is named {pattern}; there are {', '.join(names)}")
    return options


def main() -> int:
    options = arguments()
    allowed = sorted(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    cores = allowed[:2] if options.placement == "own" else allowed[:1] * 2
    if len(cores) < 2:
        print("there is one core only: --placement shared", file=sys.stderr)
        return 2
    chosen = [s for s in SUBJECTS if any(fnmatch.fnmatch(s.name, p) for p in options.only)]
    versions, absent = {}, {}
    for subject in chosen:
        version, reason = found(subject)
        if reason:
            absent[subject.name] = reason
        elif subject.distribution:
            versions[subject.distribution] = version
    about = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "placement": options.placement,
        "cores of client and server": cores if hasattr(os, "sched_setaffinity") else "not pinned",
        "rounds": f"{options.rounds} of {options.seconds} s",
        "load before": os.getloadavg()[0],
        "versions": versions,
    }
    for key, value in about.items():
        print(f"{key}: {value}")
    rows, failed = [], False
    for size in options.size:
        reasons = dict(absent)
        rounds: dict[str, list[dict[str, float]]] = {s.name: [] for s in chosen}
        for turn, subject in itertools.product(range(options.rounds), chosen):
            if subject.name in reasons:
                continue
            try:
                rounds[subject.name].append(measure(subject, size, options.seconds, cores))
            except (OSError, EOFError, RuntimeError) as error:
                reasons[subject.name] = (
                    f"failed in round {turn + 1}: {str(error) or 'a process ended'}"
                )
                failed = True
        rows += table(chosen, size, rounds, reasons)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"about": about, "rows": rows}, file, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
