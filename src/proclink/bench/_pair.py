"""The two processes of a measurement, seen from the program that orders it."""

from __future__ import annotations

import array
import os
import secrets
import signal
import subprocess
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from proclink._errors import ProclinkError
from proclink._options import MEBIBYTE, Spin
from proclink.bench._frames import Words, read_frame, write_frame
from proclink.bench._modes import Mode
from proclink.bench._placement import Placement
from proclink.bench._rows import Samples

if TYPE_CHECKING:
    from typing_extensions import Self

TRANSPORTS = ("pipe", "shm", "tcp")
"""Those that join two processes."""

_PATIENCE = 40.0
_LONGEST_BY_DEFAULT = 64 * MEBIBYTE


class MeasurementFailed(ProclinkError, RuntimeError):
    """A process of a measurement failed, died or did not answer."""


class _Worker:
    """One process."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._patience = _PATIENCE
        # Its own process group: Ctrl-C in the terminal reaches the ordering program only, which
        # then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proclink.bench._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )

    def order(self, words: Words) -> None:
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, words)
        except OSError:
            self._raise_ended()

    def answer(self, wanted: str, patience: float = _PATIENCE) -> tuple[Words, bytes]:
        """The next answer.

        Raises:
            MeasurementFailed: It tells of a failure, or none comes in time.
        """
        assert self._process.stdout is not None
        self._patience = patience
        watch = threading.Timer(patience, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            frame = read_frame(self._process.stdout)
        finally:
            watch.cancel()
        if frame is None:
            self._raise_ended()
        if "error" in frame[0]:
            raise MeasurementFailed(f"the {self._role} failed: {frame[0]['error']}")
        if wanted not in frame[0]:
            raise MeasurementFailed(f"the {self._role} gave an answer out of turn")
        return frame

    def _raise_ended(self) -> NoReturn:
        self.end(patience=1.0)
        code = self._process.returncode
        if code == -signal.SIGKILL:
            raise MeasurementFailed(
                f"the {self._role} was killed, or did not answer in {self._patience:.0f} s"
            )
        raise MeasurementFailed(f"the {self._role} ended with exit status {code}")

    def end(self, patience: float = 5.0) -> None:
        """Lets the process end, and ends it if it does not."""
        try:
            self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Pair:
    """A server and a client with one link, to measure any number of sizes and modes with."""

    def __init__(self, transport: str, placement: Placement, spin: Spin, longest: int) -> None:
        self._transport = transport
        self._placement = placement
        self._link: Words = {"spin": spin, "max_message": max(longest, _LONGEST_BY_DEFAULT)}
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def _start(self) -> None:
        # Together: most of a start is the interpreter's.
        for role in ("server", "client"):
            self._workers.append(_Worker(role))
        server, client = self._workers
        url = _free_url(self._transport)
        server.order({**self._link, "role": "server", "url": url, "cpu": self._placement.server})
        url = server.answer("address")[0]["address"]
        client.order({**self._link, "role": "client", "url": url, "cpu": self._placement.client})
        for worker in self._workers:
            worker.answer("connected")

    def measure(self, mode: Mode, size: int, seconds: float) -> Samples:
        """One round of one measurement."""
        server, client = self._workers
        words: Words = {"mode": mode, "size": size}
        server.order(words)
        client.order({**words, "seconds": seconds})
        for worker in self._workers:
            worker.answer("ready")
        for worker in self._workers:
            worker.order({"start": True})
        # The server's failure is the cause of the client's silence, so it is told of first; without
        # one it has nothing to say before the client is done.
        patience = _PATIENCE + 4 * seconds
        server.answer("done", patience)
        taken, data = client.answer("messages", patience)
        times = array.array("q")
        times.frombytes(data)
        return Samples(times, taken["messages"])

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is not None:
            self._kill()
        for worker in self._workers:
            worker.end()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()


def _free_url(transport: str) -> str:
    if transport == "tcp":
        return "tcp://127.0.0.1:0"
    return f"{transport}://bench-{os.getpid()}-{secrets.token_hex(4)}"
