"""Python runs out of memory in the middle of a call: at every allocation, one at a time."""

from __future__ import annotations

import pytest

from faults import starved
from faults.children import Program

pytest.importorskip("_testcapi", reason="this Python has no way to let an allocation fail")


SIZES = pytest.mark.parametrize("size", [10, 20_000, 50_000])


@SIZES
@pytest.mark.parametrize("verb", starved.SENDING)
def test_a_send_that_fails_has_sent_nothing(verb: str, size: int) -> None:
    with Program(starved.send_short_of_memory, verb, size) as child:
        print(f"{child.hear()} allocations failed")
        assert child.wait() == 0, child.errors()


@SIZES
@pytest.mark.parametrize("verb", starved.RECEIVING)
def test_a_receive_that_fails_has_lost_nothing(verb: str, size: int) -> None:
    with Program(starved.receive_short_of_memory, verb, size) as child:
        failed = child.hear()
        print(f"{failed} allocations failed")
        assert failed > 0 or verb == "recv_into", "it needs memory for what it returns"
        assert child.wait() == 0, child.errors()


def test_a_part_that_cannot_be_kept_ends_the_channel() -> None:
    with Program(starved.no_memory_for_a_part) as child:
        assert child.hear() > 0, "every part could be kept"
        assert child.wait() == 0, child.errors()
