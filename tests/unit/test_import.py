"""What every program pays for that imports the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import proclink

SLOW = ("asyncio", "dataclasses", "importlib.metadata", "inspect")


def _printed(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_an_import_brings_only_what_it_needs() -> None:
    code = f"import proclink, sys; print([name for name in {SLOW} if name in sys.modules])"
    assert _printed(code) == "[]"


@pytest.mark.parametrize("url", ["pipe://imports", "shm://imports", "tcp://127.0.0.1:0"])
def test_a_connect_brings_only_what_it_needs(url: str) -> None:
    with proclink.listen(url) as listener:
        code = f"""
import proclink, sys
with proclink.connect({listener.address!r}, timeout=10):
    print([name for name in {SLOW} if name in sys.modules])
"""
        assert _printed(code) == "[]"


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'proclink' has no attribute 'manager'"):
        getattr(proclink, "manager")  # noqa: B009 - mypy would see it
