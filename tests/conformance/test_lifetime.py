"""How links begin and end, and what they tell about themselves."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import multiprocessing
import os
import pickle
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proclink
from conformance.support import (
    HUGE,
    NOISE,
    SOON,
    Background,
    Flow,
    Pair,
    again_and_again,
    fill,
    receive_until,
    wait_for,
)
from conformance.transports import TransportUnderTest
from conftest import MakePair
from proclink import State


def _start_with(thing: object) -> None:
    multiprocessing.get_context("spawn").Process(target=print, args=(thing,)).start()


def test_a_bound_link_and_its_peer(url: str) -> None:
    with proclink.bind(url) as server:
        assert (server.state, server.peer) == (State.CONNECTING, None)
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"ping")
            assert server.recv(timeout=SOON) == b"ping"
            server.send(b"pong")
            assert client.recv(timeout=SOON) == b"pong"
            assert (server.state, client.state) == (State.CONNECTED, State.CONNECTED)
        assert repr(client).endswith("closed>")
        wait_for(lambda: server.state is State.DISCONNECTED, "the peer's end")
        with pytest.raises(proclink.TimedOut):
            server.recv(timeout=0.01)
        assert server.state.value == "connecting"
    assert server.state.value == "closed"


def test_a_listener_and_its_clients(url: str) -> None:
    with proclink.listen(url) as listener, contextlib.ExitStack() as stack:
        clients = []
        for number in range(5):
            clients.append(stack.enter_context(proclink.connect(listener.address, timeout=SOON)))
            clients[-1].send(b"%d" % number)
        links = [stack.enter_context(listener.accept(timeout=SOON)) for _ in clients]
        numbers = [int(link.recv(timeout=SOON)) for link in links]
        assert sorted(numbers) == [0, 1, 2, 3, 4]
        for number, link in zip(numbers, links, strict=True):
            link.send(b"for %d" % number)
        for number, client in enumerate(clients):
            assert client.recv(timeout=SOON) == b"for %d" % number


def test_accepted_links_outlive_their_listener(url: str) -> None:
    with contextlib.ExitStack() as stack:
        with proclink.listen(url) as listener:
            client = stack.enter_context(proclink.connect(listener.address, timeout=SOON))
            server = stack.enter_context(listener.accept(timeout=SOON))
        client.send(b"still here")
        assert server.recv(timeout=SOON) == b"still here"
        assert server.state is State.CONNECTED
        with pytest.raises(proclink.LinkClosed):
            listener.accept(timeout=SOON)


def test_a_listener_is_iterated(url: str) -> None:
    with proclink.listen(url) as listener, contextlib.ExitStack() as stack:
        for number, link in enumerate(
            stack.enter_context(link) for link in _connecting(listener, stack, 3)
        ):
            link.send(b"%d" % number)
            if number == 2:
                listener.close()


def _connecting(
    listener: proclink.Listener, stack: contextlib.ExitStack, count: int
) -> proclink.Listener:
    for _ in range(count):
        stack.enter_context(proclink.connect(listener.address, timeout=SOON))
    return listener


def test_clients_nobody_accepted_see_the_listener_close(url: str) -> None:
    with proclink.listen(url) as listener:
        client = proclink.connect(listener.address, timeout=SOON)
    with client, pytest.raises(proclink.Disconnected):
        client.recv(timeout=SOON)


# --- close ----------------------------------------------------------------------------------------


def test_what_was_sent_before_close_still_arrives(flow: Flow) -> None:
    sent = fill(flow.sender)
    flow.sender.close()
    received = [flow.receiver.recv(timeout=SOON) for _ in sent]
    assert received == sent


def test_what_was_sent_before_close_reaches_a_peer_that_is_sending(pair: Pair) -> None:
    if pair.server.address.startswith("tcp"):
        pytest.skip("TCP resets a connection that is closed under a peer's sends (RFC 2525, 2.17)")
    sent = fill(pair.server)
    fill(pair.client)
    sending = Background(lambda: again_and_again(lambda: pair.client.send(bytes(1000))))
    sending.wait_until_blocked()
    pair.server.close()
    with pytest.raises(proclink.Disconnected):
        sending.result()
    assert [pair.client.recv(timeout=SOON) for _ in sent] == sent


@pytest.mark.parametrize("size", [8, 1000, 20_000])
def test_the_goodbye_of_a_full_link_arrives(pair: Pair, size: int) -> None:
    sent = fill(pair.server, size)
    pair.server.close()
    assert [pair.client.recv(timeout=SOON) for _ in sent] == sent
    with pytest.raises(proclink.PeerClosed):
        pair.client.recv(timeout=SOON)


def test_a_link_sees_its_peer_close(pair: Pair) -> None:
    waiting = Background(pair.client.recv)
    waiting.wait_until_blocked()
    pair.server.close()
    with pytest.raises(proclink.PeerClosed):
        waiting.result()
    assert pair.client.state is State.DISCONNECTED
    for call in (
        lambda: pair.client.recv(timeout=0),
        lambda: pair.client.recv_many(timeout=SOON),
        lambda: pair.client.recv_into(bytearray(8), timeout=0),
        lambda: pair.client.recv_view(timeout=0),
        lambda: pair.client.send(b"x", timeout=0),
        lambda: pair.client.send_many([b"x"], timeout=0),
    ):
        with pytest.raises(proclink.PeerClosed):
            call()


def test_a_sender_sees_its_peer_close(pair: Pair) -> None:
    pair.server.close()
    with pytest.raises(proclink.PeerClosed):
        again_and_again(lambda: pair.client.send(bytes(100), timeout=SOON))


def test_a_waiting_sender_sees_its_peer_close(pair: Pair) -> None:
    fill(pair.client)
    waiting = Background(lambda: pair.client.send(NOISE))
    waiting.wait_until_blocked()
    pair.server.close()
    with pytest.raises(proclink.PeerClosed):
        waiting.result()


def test_who_only_tries_sees_its_peer_close(pair: Pair) -> None:
    """Also with timeout=0, and for as long as it takes."""
    fill(pair.client)
    pair.server.close()
    sees_the_end = []

    def receive() -> bool:
        with contextlib.suppress(proclink.TimedOut):
            pair.client.recv(timeout=0)
        return False

    def send() -> bool:
        with contextlib.suppress(proclink.TimedOut):
            pair.client.send(bytes(4000), timeout=0)
        return False

    for call in (send, receive):
        with pytest.raises(proclink.Disconnected):
            wait_for(call, "the end of the link")
        sees_the_end.append(call)
    assert len(sees_the_end) == 2


def test_close_is_for_good_and_harmless_again(flow: Flow) -> None:
    flow.sender.send(b"message", timeout=SOON)
    for _ in range(3):
        flow.receiver.close()
    assert flow.receiver.state is State.CLOSED
    for call in (
        flow.receiver.recv,
        lambda: flow.receiver.recv(timeout=0),
        lambda: flow.receiver.recv_many(timeout=0),
        lambda: flow.receiver.recv_into(bytearray(8), timeout=0),
        lambda: flow.receiver.recv_view(timeout=0),
        lambda: flow.receiver.send(b"x"),
        lambda: flow.receiver.send(b"x", timeout=0),
        lambda: flow.receiver.send_many([b"x"], timeout=0),
    ):
        with pytest.raises(proclink.LinkClosed):
            call()
    assert list(flow.receiver) == []
    with flow.receiver:
        assert flow.receiver.state is State.CLOSED


def test_a_closed_link_frees_its_memory(flow: Flow) -> None:
    flow.sender.send(b"message", timeout=SOON)
    flow.sender.close()
    flow.receiver.close()
    assert "memfd:proclink" not in Path("/proc/self/maps").read_text()


def test_a_context_manager_closes_after_an_error(url: str) -> None:
    with pytest.raises(ZeroDivisionError), proclink.bind(url) as link:
        raise ZeroDivisionError
    assert link.state is State.CLOSED
    with pytest.raises(ZeroDivisionError), proclink.listen(url) as listener:
        raise ZeroDivisionError
    with pytest.raises(proclink.LinkClosed):
        listener.accept(timeout=0)


def test_iteration_ends_with_the_peer(pair: Pair) -> None:
    pair.server.send_many([b"1", b"", b"3"], timeout=SOON)
    pair.server.close()
    assert list(pair.client) == [b"1", b"", b"3"]


# --- the next peer --------------------------------------------------------------------------------


def test_a_bound_link_goes_on_with_the_next_peer(url: str) -> None:
    with proclink.bind(url) as server:
        for number in range(20):
            with proclink.connect(server.address, timeout=SOON) as client:
                client.send(b"%d" % number)
                assert server.recv(timeout=SOON) == b"%d" % number
                server.send(b"back %d" % number, timeout=SOON)
                assert client.recv(timeout=SOON) == b"back %d" % number


def test_receiving_goes_on_with_the_next_peer(url: str) -> None:
    with proclink.bind(url) as server:
        waiting = Background(server.recv)
        for _ in range(3):
            waiting.wait_until_blocked()
            proclink.connect(server.address, timeout=SOON).close()
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"at last")
            assert waiting.result() == b"at last"


def test_sending_waits_for_a_peer(url: str) -> None:
    with proclink.bind(url) as server:
        for number in range(3):
            waiting = Background(lambda number=number: server.send(b"%d" % number))  # type: ignore[misc]
            waiting.wait_until_blocked()
            with proclink.connect(server.address, timeout=SOON) as client:
                assert client.recv(timeout=SOON) == b"%d" % number
            waiting.result()
            with pytest.raises(proclink.PeerClosed):
                # The peer's end may be on its way.
                again_and_again(lambda: server.send(b"to nobody", timeout=SOON))


@pytest.mark.parametrize("message", [bytes(4000), HUGE], ids=["small", "huge"])
def test_a_waiting_send_is_not_turned_over_to_the_next_peer(url: str, message: bytes) -> None:
    with proclink.bind(url, ring_size=64 * 1024) as server:
        with proclink.connect(server.address, timeout=SOON):
            fill(server)
            waiting = Background(lambda: server.send_many([message] * 1000))
            waiting.wait_until_blocked()
        with proclink.connect(server.address, timeout=SOON) as client:
            with pytest.raises(proclink.PeerClosed):
                waiting.result()
            server.send(b"to the next", timeout=SOON)
            assert client.recv(timeout=SOON) == b"to the next"


def test_messages_of_the_old_peer_come_first(url: str) -> None:
    with proclink.bind(url) as server:
        for peer in range(3):
            with proclink.connect(server.address, timeout=SOON) as client:
                client.send_many([b"%d %d" % (peer, number) for number in range(3)])
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"end")
            for _ in range(3):  # an answer would reach the wrong one
                with pytest.raises(proclink.PeerClosed):
                    server.send(b"answer", timeout=SOON)
            received = receive_until(server, b"end")
            server.send(b"answer", timeout=SOON)
            assert client.recv(timeout=SOON) == b"answer"
    assert received == [b"%d %d" % (peer, number) for peer in range(3) for number in range(3)]


@pytest.mark.parametrize("seen", [True, False])
def test_nothing_is_sent_to_a_peer_that_left(url: str, seen: bool) -> None:
    with proclink.bind(url) as server:
        with proclink.connect(server.address, timeout=SOON) as client:
            server.send(b"first", timeout=SOON)
            assert client.recv(timeout=SOON) == b"first"
        if seen:
            wait_for(lambda: server.state is State.DISCONNECTED, "the peer's end")
        with proclink.connect(server.address, timeout=SOON) as client:
            # The next one was let in, so the end of the last one was seen.
            with pytest.raises(proclink.PeerClosed):
                server.send(b"second", timeout=SOON)
            server.send(b"third", timeout=SOON)
            assert client.recv(timeout=SOON) == b"third"


def test_a_second_peer_is_refused_until_the_first_is_gone(url: str) -> None:
    with proclink.bind(url) as server:
        with proclink.connect(server.address, timeout=SOON) as client:
            for _ in range(3):
                with pytest.raises(proclink.Busy):
                    proclink.connect(server.address, timeout=SOON)
            client.send(b"unharmed")
            assert server.recv(timeout=SOON) == b"unharmed"
        with proclink.connect(server.address, timeout=SOON) as client:
            client.send(b"next")
            assert server.recv(timeout=SOON) == b"next"


# --- connecting -----------------------------------------------------------------------------------


def test_connect_waits_for_a_late_server(transport: TransportUnderTest, url: str) -> None:
    if transport.name == "tcp":
        with proclink.bind(url) as reserved:
            url = reserved.address
    waiting = Background(lambda: proclink.connect(url, timeout=SOON))
    waiting.wait_until_blocked()
    with proclink.bind(url) as server, waiting.result() as client:
        client.send(b"there you are")
        assert server.recv(timeout=SOON) == b"there you are"


def test_a_server_that_restarts_is_missed_by_nobody(
    transport: TransportUnderTest, url: str
) -> None:
    """Whatever a client meets (no name, a hang-up, a close in the middle), it tries again."""
    if transport.name == "tcp":
        with proclink.bind(url) as reserved:
            url = reserved.address
    over = threading.Event()

    def serve() -> None:
        for turn in itertools.count():
            with contextlib.suppress(proclink.TimedOut), proclink.listen(url) as listener:
                for _ in range(turn % 4):
                    listener.accept(timeout=0.001).close()
            if over.is_set():
                return

    serving = Background(serve)
    try:
        for _ in range(100):
            proclink.connect(url, timeout=SOON).close()
    finally:
        over.set()
        serving.result()


@pytest.mark.parametrize(
    "number", [socket.EAI_AGAIN, socket.EAI_NONAME], ids=["no name server", "no name"]
)
def test_a_name_that_is_unknown_yet(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = socket.getaddrinfo
    turns = iter(range(100))

    def resolve(host: str, *arguments: Any, **keywords: Any) -> Any:
        if host == "later.invalid" and next(turns) < 3:
            raise socket.gaierror(number, "not yet")
        return real("127.0.0.1", *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with proclink.listen("tcp://127.0.0.1:0") as listener:
        url = listener.address.replace("127.0.0.1", "later.invalid")
        with pytest.raises(proclink.NoServer, match=r"the host is unknown.*not yet") as caught:
            proclink.connect(url, timeout=0)
        assert isinstance(caught.value.__cause__, socket.gaierror)
        proclink.connect(url, timeout=SOON).close()


@pytest.mark.parametrize("timeout", [0, 0.01, 0.1])
def test_nobody_answers(transport: TransportUnderTest, url: str, timeout: float) -> None:
    if transport.name == "tcp":
        with proclink.bind(url) as reserved:
            url = reserved.address
    with pytest.raises(proclink.NoServer) as caught:
        proclink.connect(url, timeout=timeout)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ConnectionRefusedError)
    if transport.name != "memory":
        assert isinstance(caught.value.__cause__, ConnectionRefusedError | FileNotFoundError)


@pytest.mark.parametrize("timeout", [0, 0.001, None, float("inf")])
def test_a_server_that_is_there_answers_with_any_timeout(
    url: str, timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortest = "proclink.transports._connecting._SHORTEST_HANDSHAKE"
    monkeypatch.setattr(shortest, SOON)  # a loaded machine takes its time
    with proclink.listen(url) as listener:
        for _ in range(50):
            client = proclink.connect(listener.address, timeout=timeout)
            with client, listener.accept(timeout=SOON) as link:
                client.send(b"x")
                assert link.recv(timeout=SOON) == b"x"


def test_an_address_in_use(url: str) -> None:
    for first in (proclink.bind, proclink.listen):
        with first(url) as owner:
            for second in (proclink.bind, proclink.listen):
                with pytest.raises(proclink.AddressInUse) as caught:
                    second(owner.address)
                if not url.startswith("tcp"):
                    assert caught.value.pid == os.getpid()
    with proclink.bind(url):
        pass


# --- what a link tells ----------------------------------------------------------------------------


def test_the_address_can_be_connected_to(transport: TransportUnderTest, url: str) -> None:
    with proclink.bind(url) as server:
        if transport.name == "tcp":
            assert server.address.startswith("tcp://127.0.0.1:")
            assert not server.address.endswith(":0")
        else:
            assert server.address == url
        with proclink.connect(server.address, timeout=SOON) as client:
            assert client.address == server.address


def test_the_peer(transport: TransportUnderTest, pair: Pair) -> None:
    for link in pair:
        peer = link.peer
        assert peer is not None
        if transport.name == "tcp":
            assert peer.pid is peer.uid is peer.gid is None
            assert (peer.address or "").startswith("127.0.0.1:")
        else:
            assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
            assert peer.address is None
    before = pair.server.peer
    pair.client.close()
    assert pair.server.peer == before


def test_representation(url: str) -> None:
    with proclink.bind(url) as server:
        assert repr(server) == f"<proclink.Link {server.address} connecting>"
        with proclink.connect(server.address, timeout=SOON) as client:
            assert repr(client) == f"<proclink.Link {server.address} connected>"
        assert repr(client) == f"<proclink.Link {server.address} closed>"
    with proclink.listen(url) as listener:
        assert repr(listener) == f"<proclink.Listener {listener.address}>"


def test_a_link_is_no_descriptor(pair: Pair) -> None:
    for link in pair:
        with pytest.raises(io.UnsupportedOperation):
            link.fileno()


@pytest.mark.filterwarnings("always::ResourceWarning")
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps, _start_with])
def test_a_link_is_not_copied(url: str, how: Callable[[object], object]) -> None:
    with (
        proclink.listen(url) as listener,
        proclink.connect(listener.address, timeout=SOON) as client,
        listener.accept(timeout=SOON) as accepted,
    ):
        loan = client.loan(8, timeout=SOON)
        for thing, advice in (
            (client, "pass its address"),
            (accepted, "pass its address"),
            (listener, "pass its address"),
            (loan, "copy its room"),
        ):
            with pytest.raises(TypeError, match=f"{type(thing).__name__} cannot be.*{advice}"):
                how(thing)
        loan.room[:] = b"unharmed"
        loan.send()
        assert accepted.recv(timeout=SOON) == b"unharmed"


@pytest.mark.parametrize("call", [proclink.bind, proclink.listen, proclink.connect])
@pytest.mark.parametrize(
    "name", ["_thread.start_new_thread", "socket.socket"], ids=["threads", "sockets"]
)
def test_replaced_threads_or_sockets_are_told(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str, call: Callable[[str], proclink.Link]
) -> None:
    class Greened:
        pass

    Greened.__module__ = "gevent.something"
    monkeypatch.setattr(name, Greened)
    with pytest.raises(RuntimeError, match="gevent has replaced"):
        call(url)


def test_a_forgotten_link_warns_and_closes(url: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server = proclink.bind(url)
        address = server.address
        client = proclink.connect(address, timeout=SOON)
        del client
        del server
        listener = proclink.listen(address)
        del listener
    messages = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert messages == [f"unclosed link {address}"] * 2 + [f"unclosed listener {address}"]


def test_a_forgotten_link_closes_also_when_warnings_are_errors(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: seen.append(problem.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        link = proclink.bind(url)
        address = link.address
        del link
    assert [type(error) for error in seen] == [ResourceWarning]
    seen.clear()
    proclink.bind(address).close()


def test_a_closed_link_is_not_kept_alive(make_pair: MakePair) -> None:
    with proclink.bind("memory://kept") as link:
        reference = weakref.ref(link)
    del link
    assert reference() is None
    assert threading.active_count() >= 1
