"""Other processes: started, spoken to, and killed by their own handle."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Protocol

from conformance.support import SOON

TESTS = Path(__file__).parent.parent
ROLES = ["faults.roles", "faults.crowds"]

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(ROLES)


def start_forkserver() -> None:
    """Before the first test, which leaves nothing behind."""
    multiprocessing.forkserver.ensure_running()


class Process(Protocol):
    """What :class:`subprocess.Popen` is, too."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class Forked:
    """A fork of a process that has done nothing but the imports."""

    def __init__(self, run: Callable[..., None], *arguments: object) -> None:
        self._process = forkserver.Process(target=run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._handle = os.pidfd_open(self.pid)  # its end is seen by the forkserver first
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, when it has ended."""
        return self._joined(0)

    def wait(self, timeout: float) -> int:
        """Its exit code, soon."""
        code = self._joined(timeout)
        assert code is not None, "the child does not end"
        return code

    def _joined(self, timeout: float) -> int | None:
        if self._code is None:
            self._process.join(timeout)
            self._code = self._process.exitcode
            if self._code is not None:
                self._process.close()
                os.close(self._handle)
        return self._code

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)


class Child:
    """A process that runs a function of one of the ``ROLES``, forked with everything imported.

    The function says things with ``roles.say`` and waits for an answer with ``roles.hear``.
    """

    def __init__(self, role: Callable[..., object], *arguments: object, **environment: str) -> None:
        self._heard = b""
        stdin, self._to = os.pipe()
        self._from, stdout = os.pipe()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = self._start(
                role,
                arguments,
                os.environ | {"PYTHONPATH": str(TESTS)} | environment,
                (stdin, stdout, self._errors.fileno()),
            )
        finally:
            os.close(stdin)
            os.close(stdout)

    def _start(
        self,
        role: Callable[..., object],
        arguments: tuple[object, ...],
        environment: dict[str, str],
        streams: tuple[int, int, int],
    ) -> Process:
        from faults import roles

        assert role.__module__ in ROLES
        passed = [Connection(os.dup(stream)) for stream in streams]
        try:
            return Forked(roles.run_forked, role, arguments, environment, passed)
        finally:
            for stream in passed:
                stream.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def hear(self) -> Any:
        """The next thing it says."""
        end = time.monotonic() + SOON
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._from], [], [], end - time.monotonic())
            part = os.read(self._from, 65536) if ready else b""
            assert part, f"the child said nothing more:\n{self.errors()}"
            self._heard += part
        line, self._heard = self._heard.split(b"\n", 1)
        return json.loads(line)

    def say(self, thing: object = "go") -> None:
        """Tells it something."""
        os.write(self._to, json.dumps(thing).encode() + b"\n")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it without any chance to say goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SOON)

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        return self.process.wait(SOON)

    def errors(self) -> str:
        """What it wrote to the error stream."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def wait_until_blocked(self) -> None:
        """Waits until its main thread sleeps (there is no event to wait for)."""
        seen = 0
        end = time.monotonic() + SOON
        stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat")
        while seen < 10:
            assert time.monotonic() < end, "the child does not block"
            seen = seen + 1 if stat.read_text().rpartition(")")[2].split()[0] == "S" else 0
            time.sleep(0.002)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.process.poll() is None:
            self.kill()
        os.close(self._to)
        os.close(self._from)
        self._errors.close()


class Program(Child):
    """The same with an interpreter of its own, from its start to its end.

    The function may be one of another module like ``faults.roles``.
    """

    def _start(
        self,
        role: Callable[..., object],
        arguments: tuple[object, ...],
        environment: dict[str, str],
        streams: tuple[int, int, int],
    ) -> Process:
        stdin, stdout, stderr = streams
        return subprocess.Popen(
            [sys.executable, "-m", role.__module__, role.__name__, json.dumps(arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
        )
