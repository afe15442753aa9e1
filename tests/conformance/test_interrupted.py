"""A signal handler that raises at any moment of bind, listen and close leaves nothing behind."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

import proclink
from conformance.support import wait_for

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


def _free(url: str) -> bool:
    try:
        proclink.bind(url).close()
    except proclink.AddressInUse:
        return False
    return True
