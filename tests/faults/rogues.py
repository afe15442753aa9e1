"""Programs that speak something else, or proclink wrongly."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from conformance.support import SOON
from proclink import _handshake, _registry
from proclink._handshake import Answer, Introduction, Kind

NUMBERS = {"pipe": 1, "shm": 2, "tcp": 3}
MAX_MESSAGE = 1024 * 1024

Serve = Callable[[socket.socket], object]


def introduction(scheme: str, kind: Kind, **fields: int) -> bytes:
    """A handshake message; ``fields`` says what is to be wrong with it."""
    transport = fields.pop("transport", NUMBERS[scheme])
    answer = Answer(fields.pop("answer", 0))
    fields = {"max_message": MAX_MESSAGE} | fields
    return _handshake.pack(Introduction(kind, transport, answer=answer, **fields))


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or fewer at the end."""
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


@contextlib.contextmanager
def rogue_server(scheme: str, serve: Serve) -> Iterator[str]:
    """A server that does as it likes with everybody who connects; gives its URL."""
    if scheme == "tcp":
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        path = None
    else:
        path = _registry.socket_path("rogue", scheme)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        url = f"{scheme}://rogue"
    problems: list[BaseException] = []
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(SOON)
                try:
                    if not over.is_set():
                        serve(sock)
                except ConnectionError:
                    pass  # it had enough
                except BaseException as problem:
                    problems.append(problem)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        over.set()
        with raw_client_at(listening.getsockname()):
            thread.join(SOON)
        listening.close()
        if path is not None:
            path.unlink()
    assert not thread.is_alive()
    assert problems == []


def raw_client_at(name: str | tuple[str, int]) -> socket.socket:
    """A socket connected to a socket's name."""
    sock = socket.socket(socket.AF_UNIX if isinstance(name, str) else socket.AF_INET)
    sock.settimeout(SOON)
    sock.connect(name)
    return sock


def raw_client(url: str) -> socket.socket:
    """A socket connected to a proclink server, before any introduction."""
    scheme, _, rest = url.partition("://")
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return raw_client_at((host, int(port)))
    path = Path(rest) if rest.startswith("/") else _registry.socket_path(rest, scheme)
    return raw_client_at(str(path))


def introduced_client(url: str) -> socket.socket:
    """A socket that has shaken hands correctly; what it says from now on are frames."""
    scheme = url.partition(":")[0]
    sock = raw_client(url)
    sock.sendall(introduction(scheme, Kind.HELLO))
    _handshake.unpack(receive(sock, _handshake.SIZE), Kind.WELCOME)
    sock.sendall(introduction(scheme, Kind.READY))
    return sock


def welcome_with(scheme: str, descriptors: Callable[[], list[int]] = list, **fields: int) -> Serve:
    """Shakes hands, with certain fields and descriptors, and waits for the client's end."""

    def serve(sock: socket.socket) -> None:
        receive(sock, _handshake.SIZE)
        handed = descriptors()
        try:
            socket.send_fds(sock, [introduction(scheme, Kind.WELCOME, **fields)], handed)
        finally:
            for descriptor in handed:
                os.close(descriptor)
        while sock.recv(4096):
            pass

    return serve


def frame(
    payload: bytes, kind: int = 1, commit: bytes = b"\x01", length: int | None = None
) -> bytes:
    """A frame as the stream transports send it."""
    header = kind << 56 | (len(payload) if length is None else length)
    return header.to_bytes(8, "little") + payload + commit
