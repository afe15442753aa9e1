"""What has to happen in a forked child: it must let go of its copies of the parent's links.

A child that kept them would be a second producer in a ring, keep a name locked after its owner's
death, and hide that death from the peer.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from proclink import _core

no_fork = _core.ForkRegion()
"""Entered between a descriptor's making and :func:`on_fork` of its owner, and for an import, which
would be under way for good in the child: a fork waits for both."""

# Changed by single steps only: a finalizer, a signal handler or a fork may come in between.
_registered: dict[weakref.ref[Any], Callable[[Any], None]] = {}


def on_fork(thing: Any, let_go: Callable[[Any], None]) -> None:
    """Calls ``let_go(thing)`` in a forked child, if ``thing`` is alive then."""
    # No Python code for its end: a fork could come between the end of the reference and that of the
    # thing, and a signal handler's exception would be lost.
    _registered[weakref.ref(thing, _registered.pop)] = let_go


_hooks: list[Callable[[], None]] = []


def in_child(hook: Callable[[], None]) -> None:
    """Calls ``hook()`` in every forked child, in the order of these calls."""
    _hooks.append(hook)


def new_descriptors() -> _core.Descriptors:
    """An owner of descriptors that a forked child does not keep."""
    descriptors = _core.Descriptors()
    on_fork(descriptors, _core.Descriptors.close)
    return descriptors


def _in_child() -> None:
    _core.set_main_thread(threading.get_ident())
    with contextlib.ExitStack() as everything:  # whatever one of them raises
        for hook in reversed(_hooks):
            everything.callback(hook)
        # Run in the order of their registration: a name is free before its links are gone.
        for reference, let_go in reversed(list(_registered.items())):
            thing = reference()
            if thing is not None:
                everything.callback(let_go, thing)
            del thing


_core.set_main_thread(threading.main_thread().ident or 0)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=no_fork.before_fork,
        after_in_parent=no_fork.after_fork_in_parent,
        after_in_child=_in_child,
    )
    # Last, as it lets signals through, and not called from Python, where a handler would run and
    # what it raises be lost.
    os.register_at_fork(after_in_child=no_fork.after_fork_in_child)
