"""Who owns a name, what stands in its way, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

import proclink
from conformance.support import SOON
from faults import roles
from faults.children import Child
from proclink import _registry

SCHEMES = ("pipe", "shm")


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """The schemes whose names are files."""
    return str(request.param)


def exchange(url: str) -> None:
    """A link over the address works."""
    with proclink.bind(url) as server, proclink.connect(url, timeout=SOON) as client:
        client.send(b"ping", timeout=SOON)
        assert server.recv(timeout=SOON) == b"ping"


def names(place: Path) -> list[str]:
    """The files in the directory for names."""
    return sorted(path.name for path in (place / "run" / "proclink").iterdir())


@pytest.mark.parametrize("how", ["bind", "listen"])
def test_a_live_owner_is_told_with_its_pid(scheme: str, how: str, place: Path) -> None:
    for url in (f"{scheme}://owned", f"pipe://{place}/owned.socket"):
        with Child(roles.serve, url, how) as child:
            child.hear()
            for take in (proclink.bind, proclink.listen):
                with pytest.raises(proclink.AddressInUse) as caught:
                    take(url)
                assert caught.value.pid == child.pid
                assert str(child.pid) in str(caught.value)
            child.say()
            assert child.wait() == 0
        exchange(url)


def test_the_owner_of_a_port_is_somebody_else() -> None:
    with Child(roles.serve, "tcp://127.0.0.1:0") as child:
        address = child.hear()
        with pytest.raises(proclink.AddressInUse) as caught:
            proclink.bind(address)
        assert caught.value.pid is None


@pytest.mark.parametrize("how", ["bind", "listen"])
def test_the_name_of_a_killed_owner_is_taken_over(scheme: str, how: str, place: Path) -> None:
    for url in (f"{scheme}://owned", f"pipe://{place}/owned.socket"):
        for _ in range(2):
            with Child(roles.serve, url, how) as child:
                child.hear()
                child.kill()
            with pytest.raises(proclink.NoServer):
                proclink.connect(url, timeout=0)
            exchange(url)
    assert names(place) == []
    assert [path.name for path in place.iterdir()] == ["run"]


def test_a_name_can_be_used_again_and_again(scheme: str, place: Path) -> None:
    for _ in range(50):
        exchange(f"{scheme}://again")
    assert names(place) == []


def test_schemes_have_names_of_their_own() -> None:
    with proclink.bind("pipe://same"), proclink.bind("shm://same"), proclink.bind("memory://same"):
        for url in ("pipe://same", "shm://same", "memory://same"):
            proclink.connect(url, timeout=SOON).close()


def test_no_files_are_left_after_close(scheme: str, place: Path) -> None:
    with proclink.listen(f"{scheme}://here"):
        assert names(place) == [f"here.{scheme}", f"here.{scheme}.lock"]
    assert names(place) == []


# --- in the way -----------------------------------------------------------------------------------


def _file(path: Path) -> None:
    path.write_bytes(b"precious")


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.with_name("target").write_bytes(b"precious")
    path.symlink_to("target")


def _dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


OBSTACLES = [_file, _directory, _socket, _fifo, _link, _dangling_link]


@pytest.mark.parametrize("make", OBSTACLES, ids=lambda make: make.__name__.strip("_"))
def test_what_is_in_the_way_stays_untouched(make: object, place: Path) -> None:
    assert callable(make)
    path = place / "obstacle"
    make(path)
    before = path.lstat()
    for take in (proclink.bind, proclink.listen):
        with pytest.raises(proclink.AddressBlocked, match="obstacle"):
            take(f"pipe://{path}")
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
        before.st_size,
    )
    if path.is_file():
        assert path.read_bytes() == b"precious"
    left = {path.name for path in place.iterdir()} - {"run", "obstacle", "target"}
    assert left == set(), "a refused bind leaves files behind"


@pytest.mark.parametrize("make", OBSTACLES, ids=lambda make: make.__name__.strip("_"))
def test_something_in_the_way_of_the_lock(make: object, place: Path) -> None:
    assert callable(make)
    path = place / "name"
    make(path.with_name("name.lock"))
    if make is _file:
        exchange(f"pipe://{path}")  # an empty lock file of this user is as good as none
        return
    with pytest.raises(proclink.AddressBlocked):
        proclink.bind(f"pipe://{path}")


def test_connecting_to_a_file(place: Path) -> None:
    for make in (_file, _fifo, _directory):
        path = place / make.__name__
        make(path)
        with pytest.raises(proclink.AddressBlocked):
            proclink.connect(f"pipe://{path}", timeout=0.01)


def test_a_directory_that_does_not_exist(place: Path) -> None:
    with pytest.raises(proclink.AddressError):
        proclink.bind(f"pipe://{place}/missing/name")
    with pytest.raises(proclink.NoServer):
        proclink.connect(f"pipe://{place}/missing/name", timeout=0.01)
    _file(place / "file")
    with pytest.raises(proclink.AddressError):
        proclink.bind(f"pipe://{place}/file/name")


# --- long and unusual names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["x" * 40, "x" * 41, "x" * 200, "größe", "注文" * 100, "🚀", "a b", ".hidden", "%2F", "a.lock"],
)
def test_an_unusual_name(scheme: str, name: str, place: Path) -> None:
    exchange(f"{scheme}://{name}")
    with Child(roles.serve, f"{scheme}://{name}") as child:
        assert child.hear() == f"{scheme}://{name}"
        with proclink.connect(f"{scheme}://{name}", timeout=SOON) as link:
            assert link.address == f"{scheme}://{name}"
            child.say()
            assert child.wait() == 0
    assert names(place) == []


def test_names_that_look_alike_are_different(scheme: str) -> None:
    alike = ["x" * 41, "x" * 42, "é", "e\u0301", "a b", "a_b", "A", "a"]
    with contextlib.ExitStack() as stack:
        for name in alike:
            stack.enter_context(proclink.bind(f"{scheme}://{name}"))


def test_a_long_runtime_directory(
    scheme: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = place.joinpath(*["long" * 20] * 3)
    deep.mkdir(parents=True)
    deep.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert len(str(deep)) > 200
    exchange(f"{scheme}://{'x' * 200}")
    with Child(roles.serve, f"{scheme}://name") as child:
        child.hear()
        with pytest.raises(proclink.AddressInUse) as caught:
            proclink.bind(f"{scheme}://name")
        assert caught.value.pid == child.pid
        child.kill()
    exchange(f"{scheme}://name")
    assert list((deep / "proclink").iterdir()) == []


@pytest.mark.parametrize("length", [70, 100, 150, 240])
def test_a_long_path(length: int, place: Path) -> None:
    path = place / ("x" * length)
    if length < 80:
        exchange(f"pipe://{path}")
    else:  # a socket's own name has its limits
        with contextlib.suppress(proclink.AddressError):
            exchange(f"pipe://{path}")
    with pytest.raises(proclink.ProclinkError):
        proclink.connect(f"pipe://{path}", timeout=0)


def test_a_path_longer_than_any_file_name(place: Path) -> None:
    for name in ("x" * 256, "x" * 5000):
        with pytest.raises(proclink.AddressError):
            proclink.bind(f"pipe://{place}/{name}")
        with pytest.raises(proclink.ProclinkError):
            proclink.connect(f"pipe://{place}/{name}", timeout=0)


def test_a_path_that_no_file_system_takes() -> None:
    for call in (proclink.bind, proclink.listen):
        with pytest.raises(proclink.AddressError):
            call("pipe:///tmp/\ud800")
    with pytest.raises(proclink.ProclinkError):
        proclink.connect("pipe:///tmp/\ud800", timeout=0)


# --- the runtime directory ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_directory_others_may_enter(scheme: str, mode: int, place: Path) -> None:
    directory = place / "run" / "proclink"
    directory.mkdir()
    directory.chmod(mode)
    _refused(scheme, directory)


def test_a_directory_that_is_a_link(scheme: str, place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    directory = place / "run" / "proclink"
    directory.symlink_to(place / "elsewhere")
    _refused(scheme, directory)
    assert list((place / "elsewhere").iterdir()) == []
    directory.unlink()


@pytest.mark.parametrize("make", [_file, _dangling_link], ids=["file", "dangling link"])
def test_a_directory_that_is_none(scheme: str, make: object, place: Path) -> None:
    assert callable(make)
    directory = place / "run" / "proclink"
    make(directory)
    _refused(scheme, directory)
    directory.unlink()


def _refused(scheme: str, directory: Path) -> None:
    with pytest.raises(proclink.RuntimeDirectoryError, match=str(directory)):
        proclink.bind(f"{scheme}://name")
    with pytest.raises(proclink.RuntimeDirectoryError):
        proclink.listen(f"{scheme}://name")
    with pytest.raises(proclink.RuntimeDirectoryError):
        proclink.connect(f"{scheme}://name", timeout=0)


@pytest.mark.parametrize("setting", ["", "relative", "public", "missing"])
def test_without_a_private_setting_names_live_with_temporary_files(
    scheme: str, setting: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = place / "public"
    public.mkdir()
    public.chmod(0o755)
    value = str(place / setting) if setting in ("public", "missing") else setting
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    exchange(f"{scheme}://name")
    assert _registry.runtime_directory() == place / f"proclink-{os.geteuid()}"
    assert list(public.iterdir()) == []
    assert (place / f"proclink-{os.geteuid()}").stat().st_mode & 0o777 == 0o700


def test_a_socket_is_born_private(scheme: str, place: Path) -> None:
    old = os.umask(0)
    try:
        with proclink.bind(f"{scheme}://name"), proclink.bind(f"pipe://{place}/name"):
            files = [*(place / "run" / "proclink").iterdir(), place / "name", place / "name.lock"]
            assert len(files) == 4
            assert {file.lstat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(old)


# --- tcp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "tcp://192.0.2.1:0",  # nobody's address (RFC 5737)
        "tcp://no-such-host.invalid:1",
        f"tcp://{'x' * 64}.invalid:1",
        "tcp://a..b:1",
    ],
)
def test_an_address_that_cannot_be_bound(url: str) -> None:
    with pytest.raises(proclink.ProclinkError):
        proclink.bind(url)


@pytest.mark.parametrize(
    "url", ["tcp://no-such-host.invalid:1", f"tcp://{'x' * 64}.invalid:1", "tcp://a..b:1"]
)
def test_a_host_that_does_not_exist(url: str) -> None:
    with pytest.raises(proclink.ProclinkError):
        proclink.connect(url, timeout=0.1)
