"""The two processes of a measurement, seen from the program that orders it."""

from __future__ import annotations

import array
import contextlib
import os
import secrets
import subprocess
import sys
import threading
from types import TracebackType
from typing import BinaryIO, Self, cast

from proclink._errors import ProclinkError
from proclink._options import MEBIBYTE, Spin
from proclink.bench._frames import Words, read_frame, write_frame
from proclink.bench._modes import Mode
from proclink.bench._placement import Placement
from proclink.bench._rows import Samples

TRANSPORTS = ("pipe", "shm", "tcp")
"""Those that join two processes."""

_LONGEST_BY_DEFAULT = 64 * MEBIBYTE


class MeasurementFailed(ProclinkError, RuntimeError):
    """A process of a measurement failed, died or did not answer."""


class _Abandoned(MeasurementFailed):
    """The process lost the other one."""


class _Worker:
    """One process."""

    def __init__(self, role: str, patience: float) -> None:
        self._role = role
        self._patience = patience
        self._overdue = False
        # Its own process group: Ctrl-C in the terminal reaches the ordering program only, which
        # then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proclink.bench._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        self._orders = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)

    def order(self, words: Words) -> None:
        """Sends an order.

        Raises:
            MeasurementFailed: The process has ended.
        """
        try:
            write_frame(self._orders, words)
        except OSError:
            raise self._ended() from None

    def answer(self, wanted: str, longer: float = 0.0) -> tuple[Words, bytes]:
        """The next answer, which may take ``longer`` seconds more than others.

        Raises:
            MeasurementFailed: It tells of a failure, or none comes in time.
        """
        watch = threading.Timer(self._patience + longer, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            frame = read_frame(self._answers)
        finally:
            watch.cancel()
        if frame is None:
            raise self._ended()
        words = frame[0]
        if "error" in words:
            kind = _Abandoned if words["abandoned"] else MeasurementFailed
            raise kind(f"the {self._role} failed: {words['error']}")
        if wanted not in words:
            raise MeasurementFailed(f"the {self._role} gave an answer out of turn")
        return frame

    def _give_up(self) -> None:
        self._overdue = True
        self._process.kill()

    def _ended(self) -> MeasurementFailed:
        self.dismiss()
        self.kill(patience=1.0)
        if self._overdue:
            return MeasurementFailed(f"the {self._role} did not answer in time")
        return MeasurementFailed(
            f"the {self._role} ended with exit status {self._process.returncode}"
        )

    def dismiss(self) -> None:
        """Lets the process end."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()

    def kill(self, patience: float = 0.0) -> None:
        """Ends the process, if it does not end by itself in ``patience`` seconds."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.dismiss()
        self._answers.close()


class Pair:
    """A server and a client with one link, to measure any number of sizes and modes with."""

    def __init__(
        self,
        transport: str,
        placement: Placement,
        spin: Spin,
        longest: int,
        patience: float = 40.0,
    ) -> None:
        self._transport = transport
        self._placement = placement
        self._link: Words = {"spin": spin, "max_message": max(longest, _LONGEST_BY_DEFAULT)}
        self._patience = patience
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
            self._workers.append(_Worker(role, self._patience))
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
        try:
            taken, data = client.answer("messages", longer=4 * seconds)
        except _Abandoned:
            server.answer("done")  # it knows the cause, and raises that instead
            raise
        server.answer("done")
        times = array.array("q")
        times.frombytes(data)
        return Samples(times, taken["messages"])

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exception is None:
                for worker in self._workers:
                    worker.dismiss()
                for worker in self._workers:
                    worker.kill(patience=5.0)
        finally:
            self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()


def _free_url(transport: str) -> str:
    if transport == "tcp":
        return "tcp://127.0.0.1:0"
    return f"{transport}://bench-{os.getpid()}-{secrets.token_hex(4)}"
