"""One of the two processes of a measurement: ``python -m proclink.bench._worker``.

It reads orders from its standard input, answers on its standard output, and ends with its input.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import proclink
from proclink.bench._frames import Words, read_frame, write_frame
from proclink.bench._modes import run_client, run_server

PATIENCE = 30.0
"""Seconds for the two processes to find each other."""


def main() -> None:
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        _work(orders, answers)
    except BrokenPipeError:
        return  # whoever gave the orders is gone
    except Exception as error:
        abandoned = isinstance(error, proclink.Disconnected)
        words: Words = {"error": f"{type(error).__name__}: {error}", "abandoned": abandoned}
        write_frame(answers, words)


def _work(orders: BinaryIO, answers: BinaryIO) -> None:
    frame = read_frame(orders)
    if frame is None:
        return
    words = frame[0]
    if words["cpu"] is not None:
        # Before the link is made: it asks on which CPUs it may count.
        os.sched_setaffinity(0, {words["cpu"]})
    with _link(words, answers) as link:
        while (frame := read_frame(orders)) is not None:
            words = frame[0]
            write_frame(answers, {"ready": True})
            if read_frame(orders) is None:  # the start
                return
            if "seconds" in words:
                taken = run_client(link, words["mode"], words["size"], words["seconds"])
                write_frame(answers, {"messages": taken.messages}, taken.times.tobytes())
            else:
                run_server(link, words["mode"], words["size"])
                write_frame(answers, {"done": True})


def _link(words: Words, answers: BinaryIO) -> proclink.Link:
    url, spin, longest = words["url"], words["spin"], words["max_message"]
    if words["role"] == "client":
        link = proclink.connect(url, timeout=PATIENCE, spin=spin, max_message=longest)
    else:
        # Not bind(): a link that waits for its next peer would outlive a client that failed.
        with proclink.listen(url, spin=spin, max_message=longest) as listener:
            write_frame(answers, {"address": listener.address})
            link = listener.accept(PATIENCE)
    write_frame(answers, {"connected": True})
    return link


if __name__ == "__main__":
    main()
