"""What may be set on a link."""

from __future__ import annotations

import datetime
import logging
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import proclink
from proclink import _core
from proclink._options import LARGEST_MESSAGE, MEBIBYTE, Options

GOOD: list[dict[str, Any]] = [
    {},
    {"max_message": 0},
    {"max_message": LARGEST_MESSAGE},
    {"ring_size": 64 * 1024},
    {"ring_size": 2**32},
    {"max_ring_size": 64 * 1024},
    {"max_ring_size": 2**32},
    {"spin": "auto"},
    {"spin": 0},
    {"spin": 0.5},
    {"spin": 1_000_000},
    {"handshake_timeout": 0.001},
    {"handshake_timeout": 3600},
    {"logger": logging.getLogger("mine")},
]
BAD: list[dict[str, Any]] = [
    {"max_message": -1},
    {"max_message": LARGEST_MESSAGE + 1},
    {"max_message": 1.5},
    {"max_message": "1"},
    {"max_message": None},
    {"ring_size": 0},
    {"ring_size": 64 * 1024 - 1},
    {"ring_size": 64 * 1024 + 1},
    {"ring_size": 96 * 1024},
    {"ring_size": 32 * 1024},
    {"ring_size": 2**33},
    {"ring_size": -65536},
    {"ring_size": 65536.0},
    {"max_ring_size": 64 * 1024 - 1},
    {"max_ring_size": 2**32 + 1},
    {"max_ring_size": None},
    {"spin": -1},
    {"spin": 1_000_001},
    {"spin": math.nan},
    {"spin": math.inf},
    {"spin": "fast"},
    {"spin": None},
    {"handshake_timeout": 0},
    {"handshake_timeout": -1},
    {"handshake_timeout": math.nan},
    {"handshake_timeout": math.inf},
    {"handshake_timeout": "1"},
    {"handshake_timeout": None},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_good_options(options: dict[str, Any]) -> None:
    made = Options(**options)
    for name, value in options.items():
        assert getattr(made, name) == value


@pytest.mark.parametrize("options", BAD, ids=str)
def test_bad_options_are_refused_before_anything_is_opened(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises((ValueError, TypeError), match=name if "timeout" not in name else "."):
        Options(**options)
    for call in (proclink.bind, proclink.listen):
        with pytest.raises((ValueError, TypeError)):
            call("memory://options", **options)
    if name != "ring_size":
        with pytest.raises((ValueError, TypeError)):
            proclink.connect("memory://options", timeout=0, **options)


def test_the_defaults() -> None:
    options = Options()
    assert options.max_message == 64 * MEBIBYTE
    assert options.ring_size == MEBIBYTE
    assert options.spin == "auto"
    assert options.handshake_timeout == 5.0
    assert options.logger is logging.getLogger("proclink")


@pytest.mark.parametrize(
    "timeout",
    [None, 0, 0.0, 1, 1e-9, 1e300, math.inf, True, Decimal("0.1"), Fraction(1, 10), np.float32(1)],
)
def test_a_timeout(timeout: Any) -> None:
    seconds = _core.seconds(timeout)
    if timeout is None:
        assert seconds is None
    else:
        assert seconds == float(timeout)
        assert type(seconds) is float


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, math.nan])
def test_a_timeout_that_makes_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        _core.seconds(timeout)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        ("1", TypeError),
        (datetime.timedelta(seconds=1), TypeError),
        (10**400, ValueError),
        (-(10**400), ValueError),
    ],
    ids=["str", "timedelta", "huge", "-huge"],
)
def test_what_is_no_timeout_is_told_with_its_cause(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"timeout must be None \(wait\), 0 \(try\)") as caught:
        _core.seconds(timeout)
    assert caught.value.__cause__ is not None
