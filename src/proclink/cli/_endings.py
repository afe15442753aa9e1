"""How a command ends: what is printed, and with which exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import typer

from proclink._errors import ProclinkError

FAILED = 1
INTERRUPTED = 130


class ReaderGone(Exception):
    """Nobody reads the standard output any more."""


@contextlib.contextmanager
def plain_ending() -> Iterator[None]:
    """Ends the command without a traceback for everything a user may meet."""
    try:
        yield
    except ReaderGone:
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (ProclinkError, OSError) as error:
        say(f"proclink: {sentence_of(error)}")
        raise typer.Exit(FAILED) from None


def sentence_of(error: ProclinkError | OSError) -> str:
    """An error in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        # Without the number that str() puts before it.
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__


def say(line: str) -> None:
    """Prints a line for the user, apart from the data."""
    print(line, file=sys.stderr, flush=True)


def write(*parts: bytes) -> None:
    """Writes to the standard output, at once.

    Raises:
        ReaderGone: Nobody reads it any more.
    """
    if sys.stdout is None:  # it was closed before this program started
        raise ReaderGone
    output = sys.stdout.buffer
    try:
        output.writelines(parts)
        output.flush()
    except BrokenPipeError:
        # What could not be written is still in the buffer, and would fail again at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output.fileno())
        os.close(nowhere)
        raise ReaderGone from None
