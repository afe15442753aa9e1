"""The one background thread of a process: it accepts newcomers and shakes hands with them.

It runs an asyncio loop, starts with the first bound link or listener, and is never between the wire
and ``recv``. A newcomer that is slow or mute waits here, in nobody's way. It runs no user code and
takes no lock that another thread holds while it runs any. It lives as long as the process: what is
closed at the very end still needs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from proclink import _aside

_Result = TypeVar("_Result")


class Supervisor:
    """A daemon thread with an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.loop.set_debug(False)  # it would log from here, whatever the environment says
        self._thread = threading.Thread(target=self._run, name="proclink-supervisor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _aside.never_wait_here()
        self.loop.set_exception_handler(_tell)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs a coroutine on the loop and waits for its result. Not for this thread itself."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # By default a log handler of the user's would run here.
    what = context.get("exception") or context.get("message")
    _aside.report_later(logging.getLogger("proclink"), logging.ERROR, "unexpected: %r", what)


_supervisor: Supervisor | None = None
_inherited: list[Supervisor] = []


def supervisor() -> Supervisor:
    """The supervisor of this process, started when first asked for, in a thread of the user's."""
    global _supervisor
    if _supervisor is None:
        # No lock: a signal handler or a log handler may come in here again. A second one that is
        # made meanwhile serves those that it was given to.
        _supervisor = Supervisor(asyncio.new_event_loop())
    return _supervisor


def _in_child() -> None:
    # The thread did not come along. Its loop shares its descriptors with the parent's loop, so it
    # is kept as it is, for good: closing it here would deregister the parent's sockets.
    global _supervisor
    if _supervisor is not None:
        _inherited.append(_supervisor)
    _supervisor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
