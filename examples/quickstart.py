"""A short conversation over each transport. Run it: ``python examples/quickstart.py``."""

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import proclink

LINES = ("hello", "how are you?", "goodbye")


def answer(url: str) -> None:
    """What runs at the other end: answers every line until the link is closed."""
    with proclink.connect(url) as link:
        for message in link:
            link.send(b"you said: " + message)


def talk(url: str, start: Callable[..., Any]) -> None:
    """Owns the address, starts the other end, and talks to it."""
    with proclink.bind(url) as link:
        print(link.address)  # on tcp with the port that the system picked
        other = start(target=answer, args=(link.address,), daemon=True)
        other.start()
        for line in LINES:
            link.send(line.encode())
            reply = link.recv(timeout=10)
            print(f"  {line:<13} -> {reply.decode()}")
    other.join(timeout=10)


if __name__ == "__main__":
    # Two processes, whichever transport the address chooses.
    process = multiprocessing.get_context("spawn").Process
    talk("pipe://quickstart", process)
    talk("shm://quickstart", process)
    talk("tcp://127.0.0.1:0", process)
    # The same inside one process, as tests like it.
    talk("memory://quickstart", threading.Thread)
