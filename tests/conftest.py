"""What every test gets: a private place for names, and a check that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import proclink
from conformance.support import SOON, Flow, LinkOptions, Pair, ServerOptions, wait_for
from conformance.transports import TRANSPORTS, TransportUnderTest
from faults.children import start_forkserver
from proclink._aside import errands, reports
from proclink._supervisor import supervisor

pytest_plugins = ["budget", "selection"]

MakePair = Callable[..., Pair]


# How long an example takes tells about the machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell starts background jobs with SIGINT ignored, and so would be every process made here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    start_forkserver()


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private directory, whose short path leaves names their room; names live in it, too."""
    directory = Path(tempfile.mkdtemp(prefix="pl-"))
    runtime = directory / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def no_log_records_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a refused newcomer holds the error, and so its frames and what they own."""
    logger = logging.getLogger("proclink")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])


def _possessions() -> dict[str, str]:
    things = {}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            things[f"descriptor {descriptor}"] = os.readlink(f"/proc/self/fd/{descriptor}")
    for thread in threading.enumerate():
        things[f"thread {thread.ident}"] = thread.name
    lines = Path("/proc/self/maps").read_text().splitlines()
    mappings = [line for line in lines if "memfd:proclink" in line]
    things.update({f"mapping {line.split()[0]}": "memfd:proclink" for line in mappings})
    return things


def _settle() -> None:
    """Waits for what the library does aside."""
    for aside in (errands, reports):
        aside.call(lambda: None)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, place: Path) -> Iterator[None]:
    """Descriptors, threads, mappings and names are after a test what they were before it."""
    folder = request.path.parent.name
    if folder not in ("conformance", "faults"):
        yield
        return
    supervisor().run(asyncio.sleep(0))  # it has begun
    _settle()
    before = _possessions()
    yield
    _settle()

    def left() -> dict[str, str]:
        return {k: v for k, v in _possessions().items() if k not in before}

    if left():
        gc.collect()  # an error's traceback may hold a frame
        _settle()
    assert left() == {}
    names = place / "run" / "proclink"
    files = sorted(path.name for path in names.iterdir()) if names.is_dir() else []
    assert files == [], "names are left in the runtime directory"


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> TransportUnderTest:
    """Each of the transports."""
    assert isinstance(request.param, TransportUnderTest)
    return request.param


@pytest.fixture
def url(transport: TransportUnderTest, place: Path) -> str:
    """A fresh URL."""
    return transport.url(place)


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """Closes what is entered into it, before it is checked that nothing is left."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=["bind", "listen"])
def make_pair(
    request: pytest.FixtureRequest,
    url: str,
    nothing_left_behind: None,
    closing: contextlib.ExitStack,
) -> MakePair:
    """Makes pairs of linked ends, once with ``bind`` and once with ``listen``."""

    def make(server: ServerOptions | None = None, client: LinkOptions | None = None) -> Pair:
        server_options, client_options = server or {}, client or {}
        if request.param == "bind":
            bound = closing.enter_context(proclink.bind(url, **server_options))
            link = closing.enter_context(
                proclink.connect(bound.address, timeout=SOON, **client_options)
            )
            # The client's introduction is on its way; calls with timeout=0 would not wait for it.
            wait_for(lambda: bound.state is proclink.State.CONNECTED, "the client")
            return Pair(bound, link)
        with proclink.listen(url, **server_options) as listener:
            link = closing.enter_context(
                proclink.connect(listener.address, timeout=SOON, **client_options)
            )
            return Pair(closing.enter_context(listener.accept(timeout=SOON)), link)

    return make


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """Two linked ends with small rings."""
    return make_pair({"ring_size": 64 * 1024})


@pytest.fixture(params=["to-server", "to-client"])
def flow(request: pytest.FixtureRequest, pair: Pair) -> Flow:
    """Two linked ends, once in each direction."""
    if request.param == "to-server":
        return Flow(pair.client, pair.server)
    return Flow(pair.server, pair.client)
