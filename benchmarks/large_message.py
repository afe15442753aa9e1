"""One message of 1 GiB over every transport: does it arrive, how fast, and with how much memory?

    python benchmarks/large_message.py [--mebibytes 1024]

For each transport a server process receives the message and answers with its length and checksum.
Printed are the time, and how far each side's peak memory rose beyond the message itself: on the
sending side nothing but buffers may come on top of it, on the receiving side likewise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path

import proclink

MEBIBYTE = 1024 * 1024
PATIENCE = 300.0


def peak_memory() -> int:
    """The most memory this process ever had, in bytes (VmHWM, proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(url: str, size: int, address: Connection) -> None:
    """Receives one message and answers with length, checksum and the rise of the peak memory."""
    with proclink.bind(url, max_message=size) as link:
        address.send(link.address)
        link.recv(timeout=PATIENCE)
        before = peak_memory()
        message = link.recv(timeout=PATIENCE)
        rise = peak_memory() - before - len(message)
        link.send(f"{len(message)} {zlib.crc32(message)} {rise}".encode(), timeout=PATIENCE)
        address.recv()  # lets the answer be read before the link is closed


def measure(url: str, size: int) -> str:
    """One row of the table."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(url, size, theirs), daemon=True)
    server.start()
    try:
        message = bytes(range(256)) * (size // 256)
        checksum = zlib.crc32(message)
        with proclink.connect(ours.recv(), max_message=size) as link:
            link.send(b"ready", timeout=PATIENCE)
            before = peak_memory()
            start = time.perf_counter()
            link.send(message, timeout=PATIENCE)
            length, their_checksum, their_rise = map(int, link.recv(timeout=PATIENCE).split())
            took = time.perf_counter() - start
            rise = peak_memory() - before
        ours.send(None)
    finally:
        server.join(timeout=10)
        server.kill()
    whole = length == size and their_checksum == checksum
    return (
        f"{url.partition(':')[0]:6}  {'whole' if whole else 'WRONG':6}"
        f"  {took:6.2f} s  sender +{rise / MEBIBYTE:.1f} MiB"
        f"  receiver +{their_rise / MEBIBYTE:.1f} MiB"
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=1024)
    size = parser.parse_args().mebibytes * MEBIBYTE
    print(f"one message of {size} bytes; memory beyond the message itself")
    for url in ("pipe://large-message", "shm://large-message", "tcp://127.0.0.1:0"):
        print(measure(url, size), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
