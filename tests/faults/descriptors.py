"""Processes that count the descriptors they have. Run like ``faults.roles``."""

from __future__ import annotations

import os
import time

if __name__ == "__main__":
    # Before proclink is imported, and so called between its own hook and the fork: such hooks wait.
    os.register_at_fork(before=lambda: time.sleep(0.001))

import collections
import gc
import signal
import threading
from collections.abc import Iterator

import proclink
from faults.roles import LONG, hear, run, say


def open_descriptors() -> Iterator[tuple[int, str]]:
    """Each with what it is."""
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue


class _Interrupted(Exception):
    pass


def connect_and_be_interrupted(address: str, attempts: int) -> None:
    """A signal handler raises somewhere in ``connect()``, each time a little later."""
    connecting = False

    def interrupt(*_: object) -> None:
        nonlocal connecting
        if connecting:
            connecting = False
            raise _Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    proclink.connect(address, timeout=LONG).close()
    before = len(list(open_descriptors()))
    interrupted = 0
    for attempt in range(attempts):
        link = None
        try:
            connecting = True
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + attempt % 100 * 0.00001)
            link = proclink.connect(address, timeout=LONG)
            connecting = False
        except _Interrupted:
            interrupted += 1
        if link is not None:
            link.close()
    say([before, interrupted])
    while hear():
        gc.collect()
        say([kind for _, kind in open_descriptors()])


def bind_in_a_handler(address: str, url: str, attempts: int) -> None:
    """A signal handler interrupts ``connect()`` somewhere and opens a name itself."""

    binding = False

    def interrupt(*_: object) -> None:
        nonlocal binding
        if not binding:  # the next signal may come in the handler of this one
            binding = True
            proclink.bind(url).close()
            binding = False

    signal.signal(signal.SIGALRM, interrupt)
    for attempt in range(attempts):
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + attempt % 100 * 0.00001)
        proclink.connect(address, timeout=LONG).close()
    signal.setitimer(signal.ITIMER_REAL, 0)
    say("done")


def fork_beside_connects(address: str, forks: int) -> None:
    """Says of what kind the descriptors are that some child still had, and how many children."""
    ended = threading.Event()

    def connect() -> None:
        while not ended.is_set():
            proclink.connect(address, timeout=LONG).close()

    connecting = threading.Thread(target=connect)
    connecting.start()
    kept: collections.Counter[str] = collections.Counter()
    for _ in range(forks):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            kinds = [kind for _, kind in open_descriptors()]
            ours = ("socket:", "anon_inode:", "/memfd:")
            os.write(writing, "\n".join(kind for kind in kinds if kind.startswith(ours)).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as lines:
            kept.update(line.split(":[")[0].strip() for line in lines)
        os.waitpid(pid, 0)
    ended.set()
    connecting.join()
    say(kept)


if __name__ == "__main__":
    run(globals())
