"""``proclink echo``: a server that sends back what it gets."""

from __future__ import annotations

import contextlib
import threading
from typing import Annotated

import typer

import proclink
from proclink.cli._endings import plain_ending, say, sentence_of
from proclink.cli._parameters import Url

_PATIENCE = 5.0


def echo(
    url: Url,
    listen: Annotated[
        bool, typer.Option("--listen", help="Serve many clients, each in a thread of its own.")
    ] = False,
) -> None:
    """Send every message back, until Ctrl-C.

    Without --listen there is one link, which waits for its next client when one goes.
    """
    with plain_ending():
        if listen:
            with proclink.listen(url) as listener:
                say(f"listening at {listener.address}")
                _serve(listener)
        else:
            with proclink.bind(url) as link:
                say(f"bound to {link.address}")
                for message in link:
                    with contextlib.suppress(proclink.Disconnected):  # it did not wait for it
                        link.send(message)


def _serve(listener: proclink.Listener) -> None:
    clients: dict[threading.Thread, proclink.Link] = {}
    try:
        for link in listener:
            clients = {thread: old for thread, old in clients.items() if thread.is_alive()}
            thread = threading.Thread(target=_echo_one, args=(link,), daemon=True)
            clients[thread] = link
            thread.start()
    finally:
        for link in clients.values():
            link.close()
        for thread in clients:
            thread.join(_PATIENCE)


def _echo_one(link: proclink.Link) -> None:
    try:
        with link:
            for message in link:
                link.send(message)
    except proclink.LinkClosed:
        return  # the server ends
    except proclink.PeerClosed:
        return  # it did not wait for its last echoes
    except proclink.ProclinkError as error:
        say(f"proclink: {sentence_of(error)}")
