"""The peers of a crowd of threads. Run like ``faults.roles``."""

from __future__ import annotations

import time

import proclink
from faults.roles import LONG, numbered, run, say

CROWD = 6
"""How many threads."""
LONGEST = 40_000


def message(number: int) -> bytes:
    """A message that tells its number. The long ones are streamed through a small ring."""
    return numbered(number, LONGEST if number % 4 == 0 else 8 + number * 31 % 500 * 8)


def number_of(received: bytes) -> int:
    """The number of a message, which has to be whole."""
    number = int.from_bytes(received[:8], "little")
    assert received == message(number), "torn"
    return number


def send_to_crowds(url: str, crowds: int) -> None:
    """Sends to one link after another until it is closed, with pauses for threads to wait in."""
    for _ in range(crowds):
        with proclink.connect(url, timeout=LONG) as link:
            number = 0
            try:
                while True:
                    link.send(message(number), timeout=LONG)
                    number += 1
                    end = time.perf_counter() + number * 7 % 16 * 1.25e-5
                    while time.perf_counter() < end:
                        pass
            except proclink.PeerClosed:
                say(number)


def receive_from_crowds(url: str, crowds: int) -> None:
    """Receives from one link after another until it is closed, with pauses; tells the numbers."""
    for _ in range(crowds):
        numbers: list[int] = []
        with proclink.connect(url, timeout=LONG) as link:
            try:
                while True:
                    numbers.append(number_of(link.recv(timeout=LONG)))
                    if len(numbers) % 10 == 0:
                        time.sleep(5e-3)
            except proclink.PeerClosed:
                say(numbers)


if __name__ == "__main__":
    run(globals())
