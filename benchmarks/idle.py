"""What idle links cost: the processor time of a process whose threads all wait in ``recv``.

    python benchmarks/idle.py [--seconds 10]

Both ends of one link a transport live in this process, each waiting in a thread of its own, after a
burst of messages that has made every wait spin.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time

import proclink


def wait_for_ever(link: proclink.Link) -> None:
    """Receives until the link is closed."""
    with contextlib.suppress(proclink.Disconnected):
        for _ in link:
            pass


def main() -> int:
    """Prints the share of one core."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    for url in ("pipe://idle-link", "shm://idle-link", "tcp://127.0.0.1:0"):
        with proclink.bind(url) as bound, proclink.connect(bound.address) as connected:
            waiting = [
                threading.Thread(target=wait_for_ever, args=(link,)) for link in (bound, connected)
            ]
            for thread in waiting:
                thread.start()
            for _ in range(1000):
                bound.send(b"busy")
                connected.send(b"busy")
            start, used = time.monotonic(), time.process_time()
            time.sleep(seconds)
            share = (time.process_time() - used) / (time.monotonic() - start)
            print(f"{url.partition(':')[0]:6}  {share:.4%} of one core for both ends", flush=True)
            connected.close()
            bound.close()
            for thread in waiting:
                thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
