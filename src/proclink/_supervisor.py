"""The one background thread of a process: it accepts newcomers and shakes hands with them.

It runs an asyncio loop, starts with the first bound link or listener, and is never between the wire
and ``recv``. A newcomer that is slow or mute waits here, in nobody's way. It runs no user code but
what the garbage collector runs wherever it pleases, and takes no lock that another thread holds
while it runs any. It lives as long as the process: what is closed at the very end still needs it.
"""

from __future__ import annotations

import asyncio
import asyncio.log
import logging
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from proclink import _aside, _core, _fork

_Result = TypeVar("_Result")


class Supervisor:
    """A daemon thread with an event loop."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        _aside.start_thread(self._run)

    def _run(self) -> None:
        _aside.never_wait_here()
        _core.name_thread("proclink-accept")
        self.loop.set_exception_handler(_tell)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs a coroutine on the loop and waits for its result. Not for this thread itself."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def _new_loop() -> asyncio.AbstractEventLoop:
    # Not one of the policy's, which may be a GUI's that runs in the main thread only. A loop logs,
    # at its making and in debug mode, whatever the environment says; a logger that is disabled does
    # not even ask for its level, for which it would take a lock.
    logger = asyncio.log.logger
    before, logger.disabled = logger.disabled, True
    try:
        loop = asyncio.SelectorEventLoop()
    finally:
        logger.disabled = before
    loop.set_debug(False)
    return loop


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # By default a log handler of the user's would run here.
    what = context.get("exception") or context.get("message")
    _aside.report_later(logging.getLogger("proclink"), logging.ERROR, "unexpected: %r", what)


_supervisor: Supervisor | None = None
_inherited: list[Supervisor] = []


def supervisor() -> Supervisor:
    """The supervisor of this process, started when first asked for.

    Raises:
        RuntimeError: The interpreter has ended it.
    """
    if sys.is_finalizing():
        raise RuntimeError("nothing can be bound any more: the interpreter is ending")
    # As an errand: there is only one, and no signal handler in the middle of its start.
    return _supervisor or _aside.errands.call(_started)


def _started() -> Supervisor:
    global _supervisor
    if _supervisor is None:
        _supervisor = Supervisor()
    return _supervisor


def _in_child() -> None:
    # The thread did not come along. Its loop shares its descriptors with the parent's loop, so it
    # is kept as it is, for good: closing it here would deregister the parent's sockets.
    global _supervisor
    if _supervisor is not None:
        _inherited.append(_supervisor)
    _supervisor = None


_fork.in_child(_in_child)
