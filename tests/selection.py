"""Which of the parametrized tests run.

The conformance tests are a product: transport, ``bind`` or ``listen``, direction, and the cases of
each test. The code differs by transport, so every case meets every transport. It differs by the
way of linking and by the direction in a few places only, so these two take turns: over the cases
of a test and over the transports, each of their four combinations has its turn.
"""

from __future__ import annotations

import inspect
import zlib
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import pytest

PRODUCT = ("transport", "make_pair", "flow")
"""The fixtures that are multiplied. The last two, with two parameters each, take turns."""


class Rounds(NamedTuple):
    """How often a test repeats what comes out by chance."""

    idle: int
    loaded: int
    """Beside threads that take the machine for themselves, which makes it slow."""


ROUNDS = {"all": Rounds(200, 200), "rotated": Rounds(2, 1), "smoke": Rounds(1, 1)}

_LONGEST_OF_MANY_ROUNDS = 3600
"""Seconds."""

REACHING = ("transport", "scheme", "url")
"""The fixtures and parameters that say over which transport a test goes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases",
        choices=["all", "rotated", "smoke"],
        default="rotated",
        help="the whole product; every case once a transport; or every test once a transport",
    )


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Rounds:
    """How often to repeat what comes out by chance."""
    return ROUNDS[request.config.getoption("cases")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("cases")
    if wanted == "all":
        for item in items:
            if "rounds" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(_LONGEST_OF_MANY_ROUNDS))
    if wanted == "all" or any("[" in argument for argument in config.args):
        return  # what is named with its parameters is wanted
    chosen = _rotated(items)
    if wanted == "smoke":
        chosen = _smoke(chosen)
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def _rotated(items: list[pytest.Item]) -> list[pytest.Item]:
    cases: defaultdict[str, dict[object, int]] = defaultdict(dict)
    for item in items:
        of_test = cases[_test(item)]
        of_test.setdefault(_case(item), len(of_test))
    return [item for item in items if _has_its_turn(item, cases[_test(item)])]


def _has_its_turn(item: pytest.Item, cases: Mapping[object, int]) -> bool:
    indices = _indices(item)
    if "transport" not in indices:
        return True
    if _over_a_path(item) and "url" not in _arguments(item):
        return False  # a path differs in how a link is found, and not in the link
    turn = (_start(_test(item)) + cases[_case(item)] + indices["transport"]) % 4
    turns = {turn} if len(cases) > 1 else {turn, 3 - turn}  # a single case also has the opposite
    return any(
        indices.get("make_pair", turn % 2) == turn % 2
        and indices.get("flow", turn // 2) == turn // 2
        for turn in turns
    )


def _smoke(items: list[pytest.Item]) -> list[pytest.Item]:
    groups: defaultdict[tuple[object, ...], list[pytest.Item]] = defaultdict(list)
    for item in items:
        reached = [_indices(item).get(name) for name in REACHING]
        groups[_test(item), *reached].append(item)
    chosen = {
        group[(_start(_test(group[0])) + turn) % len(group)]
        for turn, group in enumerate(groups.values())
    }
    return [item for item in items if item in chosen]


def _test(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _indices(item: pytest.Item) -> Mapping[str, int]:
    """Which parameter of each fixture it has."""
    return item.callspec.indices if hasattr(item, "callspec") else {}


def _case(item: pytest.Item) -> object:
    return frozenset(pair for pair in _indices(item).items() if pair[0] not in PRODUCT)


def _over_a_path(item: pytest.Item) -> bool:
    assert hasattr(item, "callspec")
    return getattr(item.callspec.params["transport"], "name", "") == "pipe-path"


def _arguments(item: pytest.Item) -> Mapping[str, object]:
    assert isinstance(item, pytest.Function)
    return inspect.signature(item.function).parameters


def _start(test: str) -> int:
    """Lets different tests begin differently, and each always alike, whatever is collected."""
    return zlib.crc32(test.encode())
