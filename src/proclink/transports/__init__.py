"""One module a transport; each makes channels for one address scheme."""

from __future__ import annotations

import importlib
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
    """The transport that serves an address."""
    _fork.let_go()
    with _fork.importing():
        return cast(Transport, importlib.import_module(_MODULES[address.scheme]))
