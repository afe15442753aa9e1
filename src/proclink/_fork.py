"""What has to happen in a forked child: it must let go of its copies of the parent's links.

A child that kept them would be a second producer in a ring, keep a name locked after its owner's
death, and hide that death from the peer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from proclink import _core

no_fork = _core.no_fork
"""Entered between a descriptor's making and :func:`on_fork` of its owner, and for an import, which
would be under way for good in the child: a fork waits for both."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For an import in a call of the user's.

    An exception of a signal handler in the middle of one leaves locks of Python's locked.
    """
    with no_fork, _core.SignalBlock():
        yield


# Changed by single steps only: a finalizer, a signal handler or a fork may come in between.
_registered: dict[weakref.ref[Any], tuple[Callable[[Any], None], _core.Origin]] = {}


def on_fork(thing: Any, let_go: Callable[[Any], None]) -> None:
    """Calls ``let_go(thing)`` in a forked child, if ``thing`` is alive then."""
    # No Python code for its end: a fork could come between the end of the reference and that of the
    # thing, and a signal handler's exception would be lost.
    _registered[weakref.ref(thing, _registered.pop)] = (let_go, _core.Origin())


_hooks: list[Callable[[], None]] = []


def in_child(hook: Callable[[], None]) -> None:
    """Calls ``hook()`` in every forked child, in the order of these calls."""
    _hooks.append(hook)


def new_descriptors() -> _core.Descriptors:
    """An owner of descriptors that a forked child does not keep."""
    descriptors = _core.Descriptors()
    on_fork(descriptors, _core.Descriptors.close)
    return descriptors


_here = _core.Origin()


def let_go() -> None:
    """In a forked child: lets go of what is the parent's, once.

    Python calls it for that. Whatever opens something asks for it too: another's hook may run
    before, and open or close links.
    """
    global _here
    if _here.is_here():
        return
    _core.set_main_thread(threading.get_ident())
    with contextlib.ExitStack() as everything:  # whatever one of them raises
        for hook in reversed(_hooks):
            everything.callback(hook)
        # Run in the order of their registration: a name is free before its links are gone. Of a
        # copy: with any other step the garbage collector may run, and let go of one of them.
        for reference, (release, origin) in reversed(_registered.copy().items()):
            thing = reference()
            if thing is not None and not origin.is_here():
                everything.callback(release, thing)
            del thing
    _here = _core.Origin()


_core.set_main_thread(threading.main_thread().ident or 0)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=no_fork.before_fork,
        after_in_parent=no_fork.after_fork,  # where there was no fork
        after_in_child=functools.partial(_core.call_undisturbed, let_go),
    )
