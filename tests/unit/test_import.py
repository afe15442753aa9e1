"""What every program pays for that imports the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import proclink

SLOW = ("asyncio", "importlib.metadata")


def test_an_import_brings_only_what_it_needs() -> None:
    code = f"import proclink, sys; print([name for name in {SLOW} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'proclink' has no attribute 'manager'"):
        getattr(proclink, "manager")  # noqa: B009 - mypy would see it
