"""``proclink send`` and ``proclink recv``: messages from and to the standard streams."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

import proclink
from proclink.cli._endings import plain_ending, say, write
from proclink.cli._parameters import Timeout, Url

_CONNECT_TIMEOUT = 10.0
_MOST_AT_ONCE = 1024

Bind = Annotated[bool, typer.Option("--bind", help="Own the address instead of connecting to it.")]
Count = Annotated[int | None, typer.Option(metavar="N", min=0, help="End after N messages.")]


def send(
    url: Url,
    bind: Bind = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send the whole input as one message, not its lines.")
    ] = False,
    count: Count = None,
    timeout: Timeout = None,
) -> None:
    """Send the standard input: each line is a message."""
    with plain_ending(), _link(url, bind, timeout) as link:
        for message in itertools.islice(_input_messages(raw), count):
            link.send(message, timeout)


def _input_messages(raw: bool) -> Iterator[bytes]:
    if sys.stdin is None:
        raise OSError("the standard input is closed")
    if raw:
        yield sys.stdin.buffer.read()
    else:
        for line in sys.stdin.buffer:
            yield line.removesuffix(b"\n")


def recv(
    url: Url,
    bind: Bind = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the messages back to back, not as lines.")
    ] = False,
    count: Count = None,
    timeout: Timeout = None,
) -> None:
    """Write the messages that come to the standard output.

    Ends when the peer closes the link; with --bind, waits for the next peer then. With --count, a
    peer that closes too early is an error.
    """
    end = b"" if raw else b"\n"
    with plain_ending(), _link(url, bind, timeout) as link:
        left = count
        while left is None or left > 0:
            most = _MOST_AT_ONCE if left is None else min(_MOST_AT_ONCE, left)
            try:
                messages = link.recv_many(most, timeout)
            except proclink.PeerClosed:
                if left is not None:
                    raise
                return
            write(*(part for message in messages for part in (message, end)))
            if left is not None:
                left -= len(messages)


def _link(url: str, bind: bool, timeout: float | None) -> proclink.Link:
    if bind:
        link = proclink.bind(url)
        say(f"bound to {link.address}")
        return link
    return proclink.connect(url, timeout=_CONNECT_TIMEOUT if timeout is None else timeout)
