"""Memory, file sizes and descriptors that run out."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

import proclink
from conformance.support import SOON, Background
from faults import roles
from faults.children import Child
from faults.rogues import raw_client
from faults.roles import _Records
from proclink import _core
from proclink.transports import shm


@pytest.fixture
def records() -> _Records:
    """What the logger of the test is told."""
    return _Records()


@pytest.fixture
def logger(records: _Records) -> logging.Logger:
    """A logger of the test's own."""
    logger = logging.Logger("of the test")
    logger.addHandler(records)
    return logger


def _refused(address: str) -> None:
    with pytest.raises(proclink.ConnectionFailed, match="memory") as caught:
        proclink.connect(address, timeout=SOON)
    assert type(caught.value) is proclink.ConnectionFailed


def test_a_ring_larger_than_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, records: _Records
) -> None:
    monkeypatch.setattr(shm, "_available_memory", lambda: 100_000_000)
    with proclink.bind("shm://full", ring_size=64 * 1024 * 1024, logger=logger) as server:
        _refused(server.address)
        assert records.wait_for("100000000 are free")
        monkeypatch.undo()
        # The server's directory for names went with the patches, the server did not.
        assert server.state is proclink.State.CONNECTING


def test_the_largest_ring_does_not_take_the_machine_down(
    logger: logging.Logger, records: _Records
) -> None:
    free = shm._available_memory()
    assert free is not None
    if free > 2 * _core.LARGEST_RING:
        pytest.skip("this machine has room for the largest ring")
    with proclink.bind("shm://full", ring_size=_core.LARGEST_RING, logger=logger) as server:
        _refused(server.address)
        assert records.wait_for("shared memory")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT])
def test_the_system_has_no_room(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, records: _Records, code: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(code, "no room")

    with proclink.bind("shm://full", logger=logger) as server:
        with monkeypatch.context() as patch:
            patch.setattr(_core, "create_segment", full)
            _refused(server.address)
            assert records.wait_for("shared memory")
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"room again")
            assert server.recv(timeout=SOON) == b"room again"


def test_no_doorbells_left(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, records: _Records
) -> None:
    calls = []

    def scarce(descriptors: _core.Descriptors) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.EMFILE, "too many open files")
        return create(descriptors)

    create = _core.create_doorbell
    with proclink.bind("shm://full", logger=logger) as server:
        monkeypatch.setattr(_core, "create_doorbell", scarce)
        with proclink.connect(server.address, timeout=SOON) as client:  # which tries again
            assert records.wait_for("too many open files")
            client.send(b"enough again")
            assert server.recv(timeout=SOON) == b"enough again"


def test_a_limit_of_file_sizes() -> None:
    with Child(roles.serve_within_file_size, "shm://limited", 1024 * 1024) as child:
        address = child.hear()
        _refused(address)
        assert any("shared memory" in text for text in child.hear())
        child.say()
        assert child.wait() == 0


def test_free_memory_is_found_out() -> None:
    free = shm._available_memory()
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert free is not None
    assert 0 < free <= total


SCARCE = ["pipe://scarce", "shm://scarce", "tcp://127.0.0.1:0"]


@pytest.mark.parametrize("url", SCARCE)
def test_a_server_without_descriptors_does_not_try_without_a_pause(url: str) -> None:
    with Child(roles.serve_without_descriptors, url, roles.LONG, 1) as child:
        with raw_client(child.hear()):
            assert child.hear() == 1
        child.say("leave")
        assert child.wait() == 0


@pytest.mark.parametrize("url", SCARCE)
def test_a_server_without_descriptors_tries_again_and_recovers(url: str) -> None:
    with Child(roles.serve_without_descriptors, url, 0.01, 3) as child:
        address = child.hear()
        connecting = Background(lambda: proclink.connect(address, timeout=SOON))
        assert child.hear() >= 3
        child.say("recover")
        with connecting.result() as link:
            link.send(b"recovered", timeout=SOON)
            assert child.hear() == "recovered"
            child.say()
            assert child.wait() == 0
