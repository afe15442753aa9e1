"""What has to happen in a forked child: it must let go of its copies of the parent's links.

A child that kept them would be a second producer in a ring, keep a name locked after its owner's
death, and hide that death from the peer.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from proclink import _core

# Changed by single steps only: a finalizer, a signal handler or a fork may come in between.
_registered: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}


def on_fork(thing: Any, let_go: Callable[[Any], None]) -> None:
    """Calls ``let_go(thing)`` in a forked child, if ``thing`` is alive then."""
    key = id(thing)

    def forget(_: weakref.ref[Any]) -> None:
        _registered.pop(key, None)

    _registered[key] = (weakref.ref(thing, forget), let_go)


def _in_child() -> None:
    _core.set_main_thread(threading.get_ident())
    for reference, let_go in list(_registered.values()):
        thing = reference()
        if thing is not None:
            let_go(thing)


_core.set_main_thread(threading.main_thread().ident or 0)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
