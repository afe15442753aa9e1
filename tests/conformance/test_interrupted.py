"""A signal handler that raises at any moment of bind, listen and close leaves nothing behind."""

from __future__ import annotations

import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

import proclink
from conformance.support import wait_for
from proclink import _core

ROUNDS = 60


class Stop(Exception):
    """Raised by the signal handler."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM raises."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("make", [proclink.bind, proclink.listen], ids=["bind", "listen"])
def test_an_interrupted_bind_or_close_leaves_nothing(
    url: str, make: Callable[[str], proclink.Link | proclink.Listener]
) -> None:
    # The first one imports, and an exception inside an import may leave Python's own locks locked.
    make(url).close()
    chance = random.Random(1)
    interrupted = 0
    with warnings.catch_warnings():
        # What is interrupted as it is returned is nobody's, and told so.
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(ROUNDS):
            made = None
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.5e-3))
                made = make(url)
                made.close()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                interrupted += 1
            if made is not None:
                made.close()
            wait_for(lambda: _free(url), "the address")
    assert interrupted > 0


@pytest.mark.parametrize("make", [proclink.bind, proclink.listen], ids=["bind", "listen"])
def test_a_bind_that_fails_at_any_step_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    make: Callable[[str], proclink.Link | proclink.Listener],
) -> None:
    """A handler may run, and raise, as each thing is made that a forked child must not use."""
    real = _core.Origin
    thread = threading.get_ident()  # in no other one do handlers run
    made = 0
    for failing in range(100):
        left = [failing]

        def origin(left: list[int] = left) -> _core.Origin:
            if threading.get_ident() == thread:
                left[0] -= 1
                if left[0] == -1:
                    raise Stop
            return real()

        with monkeypatch.context() as patch:
            patch.setattr(_core, "Origin", origin)
            try:
                make(url).close()
                made += 1
            except Stop:
                pass
        wait_for(lambda: _free(url), "the address")
        if left[0] >= 0:
            break
    assert made > 0
    assert failing > 1


def _free(url: str) -> bool:
    try:
        proclink.bind(url).close()
    except proclink.AddressInUse:
        return False
    return True
