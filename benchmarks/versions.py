"""Two versions of proclink beside each other: is one slower?

    python benchmarks/versions.py OLD_PYTHON NEW_PYTHON [--rounds 9] [--transports shm,pipe,tcp]
                                  [--ring-size KIB] [--cores 0,1] [--sizes 16,4096]

Each interpreter has its own proclink, say one environment of a clone at another commit. What is
measured is the blocking API with its defaults, but for the ring where it is named: round trips,
messages one way, and batches of them (`send_many`, 64 messages or 64 KB at a time; each time is of
one message), between two fresh processes pinned to a core each, of either version in turn, round
after round, so that drift of the machine hits both alike. The ratio is new over old, of each
round's times: its median, and the interval that holds it with 95 % probability (the order
statistics of the sign test). Above 1 the new version is slower.
"""
# ruff: noqa: D103, S603

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

KB = 1024
WORKLOADS = [
    *(("round trip", size) for size in (16, 4 * KB, 8 * KB, 16 * KB, 64 * KB, 256 * KB, KB * KB)),
    *(("one way", size) for size in (16, 4 * KB, 16 * KB, 64 * KB, 256 * KB, KB * KB)),
    *(("batches", size) for size in (16, 4 * KB, 16 * KB)),
]
COUNT = {"round trip": 1000, "one way": 2000, "batches": 2000}
"""A sample is the mean of so many messages, at most of `BYTES`; of a process's samples the median
is taken."""
BYTES = 32 * KB * KB
PATIENCE = 30.0


def sample(workload: str, size: int) -> int:
    """How many messages."""
    return min(COUNT[workload], max(BYTES // size, 2))


def batch(size: int) -> int:
    """How many messages go to one call."""
    return min(64, max(64 * KB // size, 2))


def serve(url: str, workload: str, size: int, ring: int) -> None:
    """Runs in the interpreter under test."""
    import proclink

    with proclink.bind(url, ring_size=ring) as link:
        print(link.address, flush=True)
        recv, send = link.recv, link.send
        if workload == "round trip":
            while (message := recv()) != b"quit":
                send(message)
            return
        count = sample(workload, size)
        while recv() != b"quit":  # the first of a batch
            for _ in range(count - 1):
                recv()
            send(b"all")


def measure(url: str, workload: str, size: int, seconds: float) -> None:
    """Runs in the interpreter under test; prints nanoseconds a message or round trip."""
    import proclink

    count, clock, message = sample(workload, size), time.perf_counter_ns, os.urandom(size)
    batches = [[message] * min(batch(size), count - i) for i in range(0, count, batch(size))]
    times: list[float] = []
    with proclink.connect(url) as link:
        send, recv = link.send, link.recv
        warm = clock() + int(seconds * 3e8)
        end = warm + int(seconds * 1e9)
        while (start := clock()) < end or not times:
            if workload == "round trip":
                for _ in range(count):
                    send(message)
                    recv()
            elif workload == "batches":
                for messages in batches:
                    link.send_many(messages)
                recv()
            else:
                for _ in range(count):
                    send(message)
                recv()
            if start > warm:
                times.append((clock() - start) / count)
        send(b"quit")
    print(statistics.median(times))


def run(python: str, transport: str, workload: str, size: int, options: Any) -> float:
    """One measurement in two fresh processes; microseconds."""
    name = f"versions-{os.getpid()}"
    url = "tcp://127.0.0.1:0" if transport == "tcp" else f"{transport}://{name}"

    def start(core: int, *arguments: object) -> subprocess.Popen[str]:
        command = [python, "-P", __file__, "--as", str(core), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=options.place)

    with start(options.cores[0], "serve", url, workload, size, options.ring) as server:
        try:
            assert server.stdout is not None  # noqa: S101
            address = server.stdout.readline().strip()
            with start(
                options.cores[1], "measure", address, workload, size, options.seconds
            ) as client:
                try:
                    output, _ = client.communicate(timeout=PATIENCE + 3 * options.seconds)
                finally:
                    client.kill()
            server.wait(PATIENCE)
        finally:
            server.kill()
    return float(output) / 1000


def version(python: str) -> str:
    say = "import proclink, sys; print(proclink.__file__, 'on', sys.version.split()[0])"
    command = [python, "-P", "-c", say]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compare(options: Any, transport: str, workload: str, size: int) -> None:
    pythons = [options.old, options.new]
    rounds: list[list[float]] = []
    for number in range(options.rounds):
        order = [0, 1] if number % 2 == 0 else [1, 0]
        times = {which: run(pythons[which], transport, workload, size, options) for which in order}
        rounds.append([times[0], times[1]])
    old, new = (statistics.median(times[which] for times in rounds) for which in (0, 1))
    ratios = sorted(new / old for old, new in rounds)
    low, high = interval(ratios)
    middle = statistics.median(ratios)
    print(
        f"{transport:5} {workload:10} {size:7} B {old:9.3f} µs {new:9.3f} µs"
        f"   {middle:6.3f}  ({low:.3f} to {high:.3f})",
        flush=True,
    )


def interval(ratios: list[float]) -> tuple[float, float]:
    """Bounds of the median, 95 % sure: as many ratios outside as the binomial law allows."""
    count = len(ratios)
    outside, probability = 0, 2.0**-count
    while probability + math.comb(count, outside + 1) * 2.0**-count <= 0.025:
        outside += 1
        probability += math.comb(count, outside) * 2.0**-count
    return ratios[outside], ratios[-1 - outside]


def child(core: str, role: str, *arguments: str) -> int:
    os.sched_setaffinity(0, {int(core)})
    if role == "serve":
        url, workload, size, ring = arguments
        serve(url, workload, int(size), int(ring))
    else:
        url, workload, size, seconds = arguments
        measure(url, workload, int(size), float(seconds))
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--as"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("old", metavar="OLD_PYTHON", type=os.path.abspath)
    parser.add_argument("new", metavar="NEW_PYTHON", type=os.path.abspath)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one measurement")
    parser.add_argument("--transports", default="shm,pipe,tcp")
    parser.add_argument("--ring-size", type=int, default=KB, dest="ring", metavar="KIB")
    parser.add_argument("--cores", help="two of those this process may use, say 0,1")
    parser.add_argument("--sizes", help="only these, in bytes, say 16,4096")
    options = parser.parse_args()
    options.ring *= KB
    if options.rounds < 2 or options.seconds <= 0:
        parser.error("--rounds must be at least 2, and --seconds above zero")
    if options.cores:
        options.cores = [int(core) for core in options.cores.split(",")]
    else:
        options.cores = sorted(os.sched_getaffinity(0))
    options.cores = options.cores[:2]
    if len(set(options.cores)) < 2:
        parser.error("it takes two cores")
    workloads = WORKLOADS
    if options.sizes:
        sizes = {int(size) for size in options.sizes.split(",")}
        workloads = [workload for workload in WORKLOADS if workload[1] in sizes]
    print(f"old: {version(options.old)}\nnew: {version(options.new)}")
    print(f"{options.rounds} rounds of {options.seconds} s, cores {options.cores}, ", end="")
    print(f"rings of {options.ring // KB} KiB, ", end="")
    print(f"load before {os.getloadavg()[0]:.2f}; ratio new/old (95 % interval)")
    with tempfile.TemporaryDirectory(prefix="versions-") as options.place:
        for transport in options.transports.split(","):
            for workload, size in workloads:
                compare(options, transport, workload, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
