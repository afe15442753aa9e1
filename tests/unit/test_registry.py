"""The ownership of names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

import proclink
from faults import roles
from faults.children import Child
from proclink._registry import claim, runtime_directory, socket_path

PROCESSES = 8
ROUNDS = 60


@pytest.mark.parametrize("leftover", [False, True], ids=["free", "leftover"])
def test_exactly_one_of_many_processes_gets_a_name(place: Path, leftover: bool) -> None:
    path = place / "race"
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(roles.claim_in_rounds, str(path))) for _ in range(PROCESSES)
        ]
        for _ in range(ROUNDS if not leftover else 10):
            if leftover:
                path.with_name("race.lock").write_text(json.dumps({"pid": 1}))
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(str(path))
            for child in children:
                child.say("claim")
            outcomes = [child.hear() for child in children]
            owners = [pid for outcome, pid in outcomes if outcome == "owner"]
            assert len(owners) == 1
            # Whoever looked before the owner had signed may not know its pid.
            assert {pid for outcome, pid in outcomes if outcome == "in use"} <= {owners[0], None, 1}
            for child in children:
                child.say("release")
            for child in children:
                assert child.hear() == "released"
        for child in children:
            child.say(None)
            assert child.wait() == 0, child.errors()
    assert [file.name for file in place.iterdir()] == ["run"]


def test_a_lock_file_replaced_between_open_and_lock(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "name"
    lock_path = place / "name.lock"
    replaced = 0
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        nonlocal replaced
        if replaced < 3:
            replaced += 1
            lock_path.unlink()  # as its owner does, just before letting it go
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptors = len(os.listdir("/proc/self/fd"))
    held = claim(path, "pipe://name")
    assert replaced == 3
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1
    assert json.loads(lock_path.read_text())["pid"] == os.getpid()
    with pytest.raises(proclink.AddressInUse):
        claim(path, "pipe://name")
    held.release()
    assert not lock_path.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_record_tells_who_owns_a_name(place: Path) -> None:
    held = claim(place / "name", "pipe://name")
    record = json.loads((place / "name.lock").read_text())
    assert record["url"] == "pipe://name"
    assert record["pid"] == os.getpid()
    assert record["started"] > 0
    with pytest.raises(proclink.AddressInUse, match=str(os.getpid())) as caught:
        claim(place / "name", "pipe://name")
    assert caught.value.pid == os.getpid()
    held.release()
    held.release()
    claim(place / "name", "pipe://name").release()


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[1]", b"null", b'{"pid": "x"}', b"\xff\xfe", b"\0" * 99]
)
def test_a_broken_record(place: Path, record: bytes) -> None:
    lock_path = place / "name.lock"
    lock_path.write_bytes(record)
    with lock_path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(proclink.AddressInUse) as caught:
            claim(place / "name", "pipe://name")
        assert caught.value.pid is None
    claim(place / "name", "pipe://name").release()
    assert not lock_path.exists()


def test_somebody_elses_socket_is_not_removed_on_release(place: Path) -> None:
    path = place / "name"
    held = claim(path, "pipe://name")
    path.write_text("ours")
    held.made_socket()
    path.with_name("other").write_text("theirs")
    path.with_name("other").replace(path)
    held.release()
    assert path.read_text() == "theirs"


def test_the_lock_of_the_next_owner_is_not_removed(place: Path) -> None:
    """A cleaner of files has removed the first one's."""
    first = claim(place / "name", "pipe://name")
    (place / "name.lock").unlink()
    second = claim(place / "name", "pipe://name")
    first.release()
    with pytest.raises(proclink.AddressInUse):
        claim(place / "name", "pipe://name")
    second.release()
    claim(place / "name", "pipe://name").release()


def test_a_refused_claim_holds_nothing(place: Path) -> None:
    (place / "name").write_text("a file")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(proclink.AddressBlocked):
            claim(place / "name", "pipe://name")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    (place / "name").unlink()
    claim(place / "name", "pipe://name").release()


def test_names_become_short_and_different_files(place: Path) -> None:
    names = [
        "a",
        "A",
        "a.b",
        "x" * 40,
        "x" * 41,
        "x" * 200,
        "ä",
        "a\u0308",
        "~",
        "a~b",
        "a b",
        "a_b",
    ]
    paths = {socket_path(name, scheme) for name in names for scheme in ("pipe", "shm")}
    assert len(paths) == 2 * len(names)
    assert all(path.parent == runtime_directory() for path in paths)
    assert all(len(path.name) <= 50 and path.name.isascii() for path in paths)
    assert socket_path("plain", "pipe").name == "plain.pipe"


def test_no_name_is_another_ones_lock_file() -> None:
    """``pipe://a.pipe.lock`` must not stand where the lock of ``pipe://a`` does."""
    locks = {socket_path("a", scheme).name + ".lock" for scheme in ("pipe", "shm")}
    files = {socket_path(name, "pipe").name for name in ("a.pipe", "a.pipe.lock", "a.shm")}
    assert not locks & files


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_others_may_enter_is_refused(place: Path, mode: int) -> None:
    runtime_directory().chmod(mode)
    with pytest.raises(proclink.RuntimeDirectoryError):
        runtime_directory()


def test_the_directory_is_private(place: Path) -> None:
    directory = runtime_directory()
    assert directory == place / "run" / "proclink"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert runtime_directory() == directory
