"""One tree of errors."""

from __future__ import annotations

import errno
import inspect
import pickle
import re

import pytest

import proclink
from proclink import _errors

DOCUMENTED = {
    "AddressError": ValueError,
    "AddressInUse": OSError,
    "AddressBlocked": FileExistsError,
    "RuntimeDirectoryError": PermissionError,
    "TimedOut": TimeoutError,
    "NoServer": ConnectionRefusedError,
    "ConnectionFailed": ConnectionError,
    "HandshakeFailed": ConnectionError,
    "VersionMismatch": ConnectionError,
    "Busy": ConnectionRefusedError,
    "PeerRefused": PermissionError,
    "Disconnected": ConnectionError,
    "PeerClosed": ConnectionError,
    "PeerLost": ConnectionResetError,
    "MessageTruncated": ConnectionResetError,
    "ChannelCorrupt": ConnectionError,
    "LinkClosed": ConnectionError,
    "MessageTooLarge": ValueError,
    "BufferTooSmall": ValueError,
    "SharedMemoryFull": MemoryError,
    "StillHeld": RuntimeError,
    "InUse": RuntimeError,
    "OutOfResources": OSError,
    "ForkedLink": RuntimeError,
}
ERRORS = [
    thing
    for _, thing in inspect.getmembers(_errors, inspect.isclass)
    if issubclass(thing, _errors.ProclinkError) and thing is not _errors.ProclinkError
]


def test_every_error_is_public_and_documented() -> None:
    assert {error.__name__ for error in ERRORS} == set(DOCUMENTED)
    for error in ERRORS:
        assert getattr(proclink, error.__name__) is error
        assert error.__name__ in proclink.__all__
        assert error.__doc__


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_also_the_builtin_one_expects(error: type[Exception]) -> None:
    assert issubclass(error, proclink.ProclinkError)
    assert issubclass(error, DOCUMENTED[error.__name__])


def _tree() -> dict[str, tuple[str, str | None]]:
    """From the documentation: each error's parent, and the builtin behind it."""
    assert _errors.__doc__ is not None
    tree: dict[str, tuple[str, str | None]] = {}
    path = ["ProclinkError"]
    for line in _errors.__doc__.splitlines():
        found = re.match(r"^([ │]*)[├└]── (\w+)(?: +\((\w+)\))?", line)
        if found:
            depth = len(found[1].expandtabs()) // 4
            del path[depth:]
            tree[found[2]] = (path[-1], found[3])
            path.append(found[2])
    return tree


def test_the_documented_tree_is_the_real_one() -> None:
    tree = _tree()
    assert set(tree) == set(DOCUMENTED)
    for name, (parent, builtin) in tree.items():
        error = getattr(proclink, name)
        assert error.__bases__[0].__name__ == parent
        if builtin is not None:
            assert error.__bases__[1].__name__ == builtin
        else:
            assert len(error.__bases__) == 1


def test_errors_carry_what_they_are_about() -> None:
    in_use = proclink.AddressInUse("pipe://x", 17)
    assert (in_use.pid, in_use.errno) == (17, errno.EADDRINUSE)
    assert "17" in str(in_use)
    assert proclink.AddressInUse("pipe://x").pid is None
    mismatch = proclink.VersionMismatch(1, 2)
    assert (mismatch.ours, mismatch.theirs) == (1, 2)
    too_large = proclink.MessageTooLarge(10, 5, sent=3)
    assert (too_large.size, too_large.limit, too_large.sent) == (10, 5, 3)
    assert proclink.BufferTooSmall(10, 5).needed == 10
    full = proclink.SharedMemoryFull(10, 5)
    assert (full.need, full.free) == (10, 5)
    assert proclink.TimedOut("x").sent == proclink.PeerLost("x").sent == 0
    assert proclink.PeerClosed("x", 4).sent == 4


@pytest.mark.parametrize(
    "error",
    [
        proclink.AddressInUse("pipe://x", 17),
        proclink.VersionMismatch(1, 2),
        proclink.MessageTooLarge(10, 5, 3),
        proclink.BufferTooSmall(10, 5),
        proclink.SharedMemoryFull(10, None),
        proclink.TimedOut("x", 2),
        proclink.PeerLost("x", 2),
        proclink.NoServer("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_between_processes(error: Exception) -> None:
    """As from a worker of a process pool."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
