"""One module a transport; each makes channels for one address scheme."""

from __future__ import annotations

import _thread
import importlib
import socket
from typing import cast

from proclink import _fork
from proclink._address import Address
from proclink.transports._contract import Transport

# Imported when first used: a program that links over one transport loads one.
_MODULES = {
    "memory": "proclink.transports.memory",
    "pipe": "proclink.transports.pipe_posix",
    "shm": "proclink.transports.shm",
    "tcp": "proclink.transports.tcp",
}


def transport_for(address: Address) -> Transport:
    """The transport that serves an address.

    Raises:
        RuntimeError: gevent or eventlet have replaced threads or sockets.
    """
    for thing, home in ((_thread.start_new_thread, "_thread"), (socket.socket, "socket")):
        if thing.__module__ != home:
            # Their thread runs in the one that waits for it, which so waits for good.
            raise RuntimeError(
                "proclink needs the system's threads and sockets, and "
                f"{thing.__module__.partition('.')[0]} has replaced them: use links in a process "
                "that is not patched"
            )
    _fork.let_go()
    with _fork.importing():
        return cast(Transport, importlib.import_module(_MODULES[address.scheme]))
