"""What is logged, where, and what that costs when nobody listens."""

from __future__ import annotations

import logging

import pytest

import proclink
from conformance.support import SOON
from conformance.transports import TransportUnderTest
from faults.rogues import raw_client
from faults.roles import _Records
from proclink._peer import Peer


@pytest.fixture
def records() -> _Records:
    """What the logger of the test is told."""
    return _Records()


def _logger(level: int, records: _Records) -> logging.Logger:
    logger = logging.Logger("of the test", level)
    logger.addHandler(records)
    return logger


def _live(url: str, logger: logging.Logger) -> str:
    with proclink.bind(url, logger=logger) as server:
        address = server.address
        with proclink.connect(address, timeout=SOON, logger=logger) as client:
            client.send(b"x")
            server.recv(timeout=SOON)
        with pytest.raises(proclink.TimedOut):
            server.recv(timeout=0.01)
    with (
        proclink.listen(url, logger=logger) as listener,
        proclink.connect(listener.address, timeout=SOON, logger=logger),
    ):
        listener.accept(timeout=SOON).close()
    return address


def test_the_logger_given_is_used(url: str, records: _Records) -> None:
    address = _live(url, _logger(logging.DEBUG, records))
    told = "\n".join(records.texts)
    for part in (f"bound to {address}", "listening at", "connected to", "closed"):
        assert part in told


def test_by_default_the_logger_is_proclink(
    url: str, records: _Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("proclink")
    monkeypatch.setattr(logger, "handlers", [records])
    monkeypatch.setattr(logger, "level", logging.INFO)
    logging.getLogger("proclink").manager._clear_cache()  # type: ignore[attr-defined]
    with proclink.bind(url) as server:
        address = server.address
    logging.getLogger("proclink").manager._clear_cache()  # type: ignore[attr-defined]
    assert f"bound to {address}" in records.texts


def test_nothing_is_formatted_when_nobody_listens(
    url: str, records: _Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise AssertionError("a peer was formatted although nothing is logged")

    monkeypatch.setattr(Peer, "__repr__", fail)
    monkeypatch.setattr(Peer, "__str__", fail)
    _live(url, _logger(logging.CRITICAL, records))
    assert records.texts == []


def test_a_level_of_info_formats_the_peer(
    transport: TransportUnderTest, url: str, records: _Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above can fail."""
    monkeypatch.setattr(Peer, "__repr__", lambda _: "the peer")
    _live(url, _logger(logging.INFO, records))
    assert any("the peer" in text for text in records.texts)


@pytest.mark.parametrize("url", ["pipe://log", "shm://log", "tcp://127.0.0.1:0"])
def test_a_refused_newcomer_is_logged(url: str, records: _Records) -> None:
    with (
        proclink.bind(url, logger=_logger(logging.WARNING, records)) as server,
        raw_client(server.address) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert records.wait_for("does not speak proclink")
    assert len(records.texts) == 1
