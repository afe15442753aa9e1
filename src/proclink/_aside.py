"""Two background threads for what must not happen where it comes up.

``errands`` opens and closes what other threads depend on: a signal handler cannot run in the middle
of it there, and a finalizer, which may run anywhere, need not wait. It never runs user code.
``reports`` runs what belongs to the user: log handlers, warnings. Whatever they do, nobody waits.

Both start when first used, and end with the process.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import logging
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from proclink import _core, _fork
from proclink._errors import ForkedLink

_Result = TypeVar("_Result")
_LONGEST_FLUSH = 0.5


class Aside:
    """A thread that does one thing after another."""

    def __init__(self, name: str, *, hurried: bool = False) -> None:
        self._name = name
        self._hurried = hurried
        self._outcomes: dict[_Outcome[Any], None] = {}  # that somebody waits for
        self._begin()

    def _begin(self) -> None:
        # Its put() may be interrupted by itself: by a finalizer, say.
        self._waiting: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._only = _thread.allocate_lock()  # of the one thread, for good
        self._thread = 0

    def forget(self) -> None:
        """In a forked child, where the thread did not come along."""
        self._begin()
        for outcome in list(self._outcomes):
            outcome.forget()

    def later(self, work: Callable[[], object]) -> None:
        """Does something soon. Never waits, and may be called anywhere."""
        _fork.let_go()
        if self._runs():
            self._waiting.put(work)
        else:
            self._drain()
            self._do(work)

    def call(self, work: Callable[[], _Result]) -> _Result:
        """Does something, waits for it and gives its result.

        Raises:
            RuntimeError: The calling thread is one that others wait for (a finalizer runs in it).
            BaseException: What it raised; or what a signal handler raised while this waited for it.
                It is done all the same then.
        """
        _fork.let_go()
        if self._thread == _thread.get_ident():
            return work()
        if not may_wait():
            raise RuntimeError(
                "a finalizer that runs in a background thread of proclink cannot open a link; open "
                "it in a thread of yours"
            )
        # Not after it is put there: a thread that the interpreter ends in its get() takes it along.
        if not self._runs():
            self._drain()
            return work()
        outcome = _Outcome(work)
        try:
            self._outcomes[outcome] = None
            self._waiting.put(outcome.run)
            return outcome.wait(None)
        finally:
            self._outcomes.pop(outcome, None)

    def settle(self, work: Callable[[], object]) -> None:
        """Does something, and waits for it where the calling thread may wait."""
        if may_wait():
            self.call(work)
        else:
            self.later(work)

    def flush(self, timeout: float) -> None:
        """Waits until everything so far is done."""
        if self._thread or not self._waiting.empty():
            outcome = _Outcome(lambda: None)
            self._waiting.put(outcome.run)
            with contextlib.suppress(TimeoutError):
                outcome.wait(timeout)

    def _runs(self) -> bool:
        """Whether the thread runs, or is about to.

        It cannot when the interpreter is about to end or the system has no thread to give. Then
        whoever asks does what waits.
        """
        if sys.is_finalizing():
            return False
        if self._thread == 0:
            # No lock: a signal handler or a finalizer may come in again. Of several that are
            # started at once, one stays.
            try:
                start_thread(self._run)
            except RuntimeError:
                return self._thread != 0
        return True

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._do(self._waiting.get_nowait())

    def _run(self) -> None:
        if not self._only.acquire(blocking=False):
            return
        self._thread = _thread.get_ident()
        _core.name_thread(self._name)
        if self._hurried:
            never_wait_here()
        else:  # for its log records
            threading.current_thread().name = self._name
        while True:
            if self._hurried:
                self._do(self._waiting.get())
            else:
                self._do_for_the_user(self._waiting.get())

    def _do_for_the_user(self, work: Callable[[], object]) -> None:
        with _signals_of_the_main_thread():
            self._do(work)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            # The hook is the user's, and nothing that it raises ends this thread.
            with contextlib.suppress(BaseException):
                if self is reports:
                    sys.excepthook(type(error), error, error.__traceback__)
                else:
                    reports.later(functools.partial(sys.excepthook, type(error), error, None))


class _Outcome(Generic[_Result]):
    """What a piece of work came to."""

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._done = _core.EventCount()
        self._result: list[_Result] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error
        del self._work
        self._done.advance()

    def forget(self) -> None:
        """In a forked child: nobody does it here."""
        self._error = ForkedLink(
            "the process forked in the middle of this call; it was the parent's"
        )
        self._done.advance()

    def wait(self, timeout: float | None) -> _Result:
        if not self._done.wait(0, timeout):
            raise TimeoutError
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or its traceback would keep this frame
        return self._result.pop()


errands = Aside("proclink-errand", hurried=True)
reports = Aside("proclink-report")

_hurried: set[int] = set()


def start_thread(work: Callable[[], object]) -> None:
    """Starts a thread that leaves the process's signals to the user's, which may block them."""
    # Not a threading.Thread, whose start() takes locks that the caller may hold.
    with _core.SignalBlock():
        _thread.start_new_thread(work, ())


@contextlib.contextmanager
def _signals_of_the_main_thread() -> Iterator[None]:
    """For the user's code: processes and threads that it starts would inherit the block of signals.

    Which signals a program blocks, to wait for them, is seen in its main thread. (One that it
    begins to block in the meantime may still come here.)
    """
    blocked = _blocked_in_main_thread()
    if blocked is None:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _blocked_in_main_thread() -> set[int] | None:
    """``None`` where the system does not tell (proc_pid_status(5))."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/status", "rb") as status:
            mask = next(int(line.split()[1], 16) for line in status if line.startswith(b"SigBlk:"))
    except OSError:
        return None
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


def never_wait_here() -> None:
    """Says that the calling thread is one that others wait for.

    It does without :mod:`threading`, whose locks the thread that waits may hold, having been
    interrupted by a signal handler or a finalizer.
    """
    _hurried.add(_thread.get_ident())


def may_wait() -> bool:
    """Whether the calling thread may wait, and run user code."""
    return _thread.get_ident() not in _hurried


_reporting = threading.local()


def report(logger: logging.Logger, level: int, message: str, *arguments: object) -> None:
    """Logs in the thread for that, if anybody wants to hear it.

    Not in the calling thread: a link may be closed in a signal handler, which may have interrupted
    a log handler of the user's that holds a lock. And not at all inside a log call of proclink's: a
    handler that ships records over a link would log what becomes of them, for ever.
    """
    # Not isEnabledFor(), which takes a lock: a signal handler that raises there leaves it locked.
    if not getattr(_reporting, "inside", False) and logger.getEffectiveLevel() <= level:
        report_later(logger, level, message, *arguments)


def _log(logger: logging.Logger, level: int, message: str, arguments: tuple[object, ...]) -> None:
    _reporting.inside = True
    try:
        logger.log(level, message, *arguments)
    finally:
        _reporting.inside = False


def warn_of_unclosed(text: str, thing: object) -> None:
    """For finalizers: a ``ResourceWarning``, which runs filters and hooks of the user's."""
    if may_wait():
        warnings.warn(text, ResourceWarning, source=thing, stacklevel=3)
    else:
        reports.later(lambda: warnings.warn(text, ResourceWarning, stacklevel=1))


def report_later(logger: logging.Logger, level: int, message: str, *arguments: object) -> None:
    """The same for a thread that must not run the user's code, as asking a logger its level may."""
    reports.later(functools.partial(_log, logger, level, message, arguments))


def _in_child() -> None:
    _hurried.clear()
    errands.forget()
    reports.forget()


def _at_exit() -> None:
    # What was forgotten last still says goodbye, and is told of.
    errands.flush(_LONGEST_FLUSH)
    reports.flush(_LONGEST_FLUSH)


atexit.register(_at_exit)
_fork.in_child(_in_child)
