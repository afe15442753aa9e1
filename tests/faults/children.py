"""Other processes: started, spoken to, and killed by their own handle."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.support import SOON

TESTS = Path(__file__).parent.parent


class Child:
    """A process that runs a function of ``faults.roles``, or of a module like it.

    The function says things with ``roles.say`` and waits for an answer with ``roles.hear``.
    """

    def __init__(self, role: Callable[..., object], *arguments: object, **environment: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._heard = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", role.__module__, role.__name__, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": str(TESTS)} | environment,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def hear(self) -> Any:
        """The next thing it says."""
        assert self.process.stdout is not None
        end = time.monotonic() + SOON
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            part = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert part, f"the child said nothing more:\n{self.errors()}"
            self._heard += part
        line, self._heard = self._heard.split(b"\n", 1)
        return json.loads(line)

    def say(self, thing: object = "go") -> None:
        """Tells it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(thing).encode() + b"\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it without any chance to say goodbye."""
        self.process.kill()
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
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()
