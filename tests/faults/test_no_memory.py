"""Python runs out of memory in the middle of a call: at every allocation, one at a time."""

from __future__ import annotations

import pytest

from faults import starved
from faults.children import Child

pytest.importorskip("_testcapi", reason="this Python has no way to let an allocation fail")


@pytest.mark.parametrize("verb", starved.SHORT_OF_MEMORY)
@pytest.mark.parametrize("size", [10, 20_000, 100_000])
def test_a_call_that_fails_has_done_nothing(verb: str, size: int) -> None:
    with Child(starved.short_of_memory, verb, size) as child:
        failures = child.hear()
        assert failures > 0, "no allocation failed"
        print(f"{failures} allocations failed")
        assert child.wait() == 0, child.errors()


def test_a_part_that_cannot_be_kept_ends_the_channel() -> None:
    with Child(starved.no_memory_for_a_part) as child:
        assert child.hear() == "broken off"
        assert child.wait() == 0, child.errors()
