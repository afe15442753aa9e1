"""Runs the command ``proclink`` in processes of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from proclink.cli import main

PATIENCE = 30.0
COMMAND = [sys.executable, "-m", "proclink"]


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments], input=given, capture_output=True, timeout=PATIENCE, check=False
    )


def run_here(
    monkeypatch: pytest.MonkeyPatch, output: pytest.CaptureFixture[bytes], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    """The same in this process, for what ends before there is anything to talk to."""
    monkeypatch.setattr(sys, "argv", ["proclink", *arguments])
    code = main()
    return subprocess.CompletedProcess(arguments, code, *output.readouterr())


class Running:
    """A command in the background."""

    def __init__(self, *arguments: str, command: list[str] = COMMAND) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            bufsize=0,  # communicate() would not see what readline() left in a buffer
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.input: IO[bytes] = self.process.stdin
        self.output: IO[bytes] = self.process.stdout
        self.errors: IO[bytes] = self.process.stderr

    def address(self) -> str:
        line = self.errors.readline().decode()
        found = re.fullmatch(r"(?:bound to|listening at) (\S+)\n", line)
        assert found, line
        return found[1]

    def say(self, line: bytes) -> None:
        self.input.write(line)
        self.input.flush()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def ending(self) -> tuple[int, bytes, bytes]:
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@contextlib.contextmanager
def running(*arguments: str, command: list[str] = COMMAND) -> Iterator[Running]:
    started = Running(*arguments, command=command)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(PATIENCE)
        for stream in (started.input, started.output, started.errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def is_one_line(errors: bytes) -> bool:
    return errors.startswith(b"proclink: ") and errors.count(b"\n") == 1 and errors.endswith(b"\n")
