"""What the transports with a socket share: accepting, and both sides of the handshake."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
import sys
import time
from typing import Protocol

from proclink import _core, _fork, _handshake
from proclink._address import Address
from proclink._aside import report_later
from proclink._errors import (
    ConnectionFailed,
    HandshakeFailed,
    NoServer,
    PeerRefused,
    ProclinkError,
    VersionMismatch,
)
from proclink._handshake import Answer, Introduction, Kind
from proclink._options import Options
from proclink._peer import Peer
from proclink._spin import cpu_mask, spin_nanoseconds
from proclink._supervisor import supervisor
from proclink.transports._contract import Channel, Connection, Gate

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_WITHOUT_RESOURCES = 0.1
_SHORTEST_HANDSHAKE = 1.0
_LONGEST_DECISION = 1.0
_FIRST_RETRY = 0.001
_LONGEST_RETRY = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What follows from both ends' introductions.

    Attributes:
        max_send: The longest message that may be sent, in bytes.
        spin: The longest spin before a sleep, in nanoseconds.
    """

    max_send: int
    spin: int


def agree(options: Options, theirs: Introduction) -> Terms:
    """The terms of a channel, from this end's options and the other's introduction."""
    return Terms(
        min(options.max_message, theirs.max_message), spin_nanoseconds(options.spin, theirs.cpus)
    )


def stream_channel(sock: socket.socket, options: Options, terms: Terms) -> Channel:
    """A channel of frames over a connected socket, which it takes over."""
    sock.setblocking(True)
    with _fork.no_fork:
        channel = _core.StreamChannel(sock, terms.max_send, options.max_message, terms.spin)
        _fork.on_fork(channel, _core.StreamChannel.abandon)
    return channel


class Socket(socket.socket):
    """A stream socket that a forked child does not keep, not even while it is made or closed."""

    def __init__(self, family: int = -1, fileno: int | None = None) -> None:
        with _fork.no_fork:
            super().__init__(family, socket.SOCK_STREAM, fileno=fileno)
            _fork.on_fork(self, Socket.close)

    def accept(self) -> tuple[Socket, object]:
        """See :meth:`socket.socket.accept`."""
        with _fork.no_fork:
            sock, address = super().accept()
            return Socket(fileno=sock.detach()), address

    def close(self) -> None:
        """Closes the socket."""
        _core.close_socket(self)
        super().close()


def new_descriptors() -> _core.Descriptors:
    """An owner of descriptors that a forked child does not keep."""
    descriptors = _core.Descriptors()
    _fork.on_fork(descriptors, _core.Descriptors.close)
    return descriptors


class Offer(Protocol):
    """What the bound side prepared for one newcomer."""

    ring_size: int

    def descriptors(self) -> list[int]:
        """Descriptors to hand over with the WELCOME."""
        ...

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        """Makes the channel; takes the socket over."""
        ...

    def withdraw(self) -> None:
        """Frees what was prepared and not handed on."""
        ...


class SocketScheme(Protocol):
    """How one transport differs from the others."""

    number: int

    def identify(self, sock: socket.socket) -> Peer:
        """Who is at the other end.

        Raises:
            PeerRefused: A user that is not allowed.
        """
        ...

    def offer(self, options: Options) -> Offer:
        """Prepares for a newcomer that was admitted."""
        ...


class StreamOffer:
    """A channel that is just the socket."""

    ring_size = 0

    def __init__(self, options: Options) -> None:
        self._options = options

    def descriptors(self) -> list[int]:
        return []

    def accept(self, sock: socket.socket, peer: Peer, terms: Terms) -> Channel:
        return stream_channel(sock, self._options, terms)

    def withdraw(self) -> None:
        pass


# --- the bound side -------------------------------------------------------------------------------


class SocketEndpoint:
    """Accepts on a listening socket and shakes hands, all on the supervisor's loop."""

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        scheme: SocketScheme,
        options: Options,
        gate: Gate,
    ) -> None:
        self.address = address
        self._socket = sock
        self._scheme = scheme
        self._options = options
        self._gate = gate
        self._newcomers: set[asyncio.Task[None]] = set()
        self._admitted: set[asyncio.Task[None]] = set()  # those of them with a reserved place
        sock.setblocking(False)
        _fork.on_fork(self, SocketEndpoint._forget)
        self._resuming: asyncio.TimerHandle | None = None
        self._supervisor = supervisor()
        self._supervisor.run(self._start())

    async def _start(self) -> None:
        self._resume()

    def _resume(self) -> None:
        self._resuming = None
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    # Not loop.sock_accept(): cancelled at the wrong moment, it loses a client's socket.
    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                # What is short may be freed; looking again at once would only spin.
                self._report(logging.ERROR, "cannot accept at %s: %s", self.address, error)
                loop.remove_reader(self._socket)
                self._resuming = loop.call_later(_PAUSE_WITHOUT_RESOURCES, self._resume)
            return
        newcomer = loop.create_task(self._receive(sock))
        self._newcomers.add(newcomer)
        newcomer.add_done_callback(self._newcomers.discard)
        newcomer.add_done_callback(self._admitted.discard)
        # And not in the task, which may be cancelled before it has begun.
        newcomer.add_done_callback(lambda _: sock.close())

    async def _receive(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._options.handshake_timeout):
                connection = await self._shake_hands(sock)
        except TimeoutError:
            text = "a newcomer at %s did not introduce itself in time"
            self._report(logging.WARNING, text, self.address)
            return
        except (ProclinkError, OSError) as error:
            # As text: an error holds the frames it came through.
            self._report(
                logging.WARNING, "a newcomer at %s was refused: %s", self.address, str(error)
            )
            return
        self._gate.deliver(connection)
        self._report(logging.INFO, "connected at %s: %s", self.address, connection.peer)

    def _report(self, level: int, message: str, *arguments: object) -> None:
        report_later(self._options.logger, level, message, *arguments)

    async def _shake_hands(self, sock: socket.socket) -> Connection:
        sock.setblocking(False)
        try:
            peer = self._scheme.identify(sock)
        except PeerRefused:
            self._answer(sock, Answer.NOT_ALLOWED)
            raise
        try:
            hello = _handshake.unpack(await _receive_introduction(sock), Kind.HELLO)
        except VersionMismatch:
            self._answer(sock, Answer.OTHER_VERSION)
            raise
        if hello.transport != self._scheme.number:
            self._answer(sock, Answer.OTHER_TRANSPORT)
            raise HandshakeFailed("it uses another transport")
        if not await self._admit():
            self._answer(sock, Answer.BUSY)
            raise ConnectionFailed("there is a peer already")
        try:
            return await self._welcome(sock, peer, hello)
        except BaseException:
            self._gate.withdraw()
            raise

    async def _admit(self) -> bool:
        """Whether there is a place.

        One that an earlier newcomer has reserved is not taken yet: that one may have come, sent and
        gone already, and only its last words of the handshake are still to be read.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(_LONGEST_DECISION, self._options.handshake_timeout / 2)
        while not self._gate.admit():
            left = end - loop.time()
            if not self._admitted or left <= 0:
                return False
            await asyncio.wait(
                set(self._admitted), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        newcomer = asyncio.current_task()
        assert newcomer is not None  # noqa: S101 - this is a coroutine
        self._admitted.add(newcomer)
        return True

    async def _welcome(self, sock: socket.socket, peer: Peer, hello: Introduction) -> Connection:
        try:
            offer = self._scheme.offer(self._options)
        except MemoryError:
            self._answer(sock, Answer.NO_MEMORY)
            raise
        try:
            self._answer(sock, Answer.WELCOME, offer.ring_size, offer.descriptors())
            _handshake.unpack(await _receive_introduction(sock), Kind.READY)
            terms = agree(self._options, hello)
            return Connection(offer.accept(sock, peer, terms), peer, terms.max_send)
        finally:
            offer.withdraw()

    def _answer(
        self,
        sock: socket.socket,
        answer: Answer,
        ring_size: int = 0,
        descriptors: list[int] | None = None,
    ) -> None:
        welcome = Introduction(
            Kind.WELCOME,
            self._scheme.number,
            self._options.max_message,
            ring_size,
            answer,
            cpus=cpu_mask(),
        )
        data = [_handshake.pack(welcome)]
        # A fresh socket always has room for 64 bytes, so this neither blocks nor sends a part.
        if descriptors:
            socket.send_fds(sock, data, descriptors)
        else:
            sock.sendmsg(data)

    def close(self) -> None:
        """Stops accepting, and sends away whoever is still introducing himself."""
        if self._socket.fileno() < 0:
            return
        if not sys.is_finalizing():  # which has ended the supervisor
            self._supervisor.run(self._stop())
        self._socket.close()

    async def _stop(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        newcomers = list(self._newcomers)
        for newcomer in newcomers:
            newcomer.cancel()
        await asyncio.gather(*newcomers, return_exceptions=True)

    def _forget(self) -> None:
        self._socket.close()


async def _receive_introduction(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < _handshake.SIZE:
        part = await loop.sock_recv(sock, _handshake.SIZE - len(data))
        if not part:
            raise HandshakeFailed("it went away during its introduction")
        data += part
        if not _handshake.looks_right(data):
            raise HandshakeFailed("it does not speak proclink")
    return data


# --- the connecting side --------------------------------------------------------------------------


class Patience:
    """The time a connecting end has left, and how long to wait before it tries again."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_RETRY

    def left(self) -> float | None:
        """Seconds left, ``None`` without an end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def pause(self, address: Address, reason: str) -> None:
        """Waits a little.

        Raises:
            NoServer: No time is left.
        """
        left = self.left()
        if left is not None and left <= 0:
            raise NoServer(f"no server answered at {address}: {reason}")
        # Nothing tells when a name appears, on any platform, so this looks again: soon, then less
        # and less often.
        time.sleep(self._pause if left is None else min(self._pause, left))
        self._pause = min(self._pause * 2, _LONGEST_RETRY)


def introduce(
    sock: socket.socket,
    scheme_number: int,
    address: Address,
    options: Options,
    patience: Patience,
    descriptors: _core.Descriptors,
    expected_descriptors: int = 0,
) -> Introduction:
    """Sends HELLO and gives the WELCOME; the descriptors that came with it go to ``descriptors``.

    The caller sends READY (:func:`ready`) when it has checked what they are.

    Raises:
        ConnectionFailed: The bound end refused, or does not speak proclink.
        NoServer: It did not answer in time.
    """
    # The caller's timeout is for the server to appear. It has appeared, so it gets the time to
    # answer even when none is left.
    left = patience.left()
    if left is None or left > options.handshake_timeout:
        left = options.handshake_timeout
    # One deadline for all of it: a server that sends a byte now and then gains no time.
    deadline = time.monotonic() + max(left, _SHORTEST_HANDSHAKE)
    sock.settimeout(max(left, _SHORTEST_HANDSHAKE))
    hello = Introduction(Kind.HELLO, scheme_number, options.max_message, cpus=cpu_mask())
    try:
        # A refusal may already be there, and its sender gone.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(_handshake.pack(hello))
        data = b""
        while len(data) < _handshake.SIZE:
            sock.settimeout(max(deadline - time.monotonic(), 1e-6))
            part = _receive_part(sock, _handshake.SIZE - len(data), descriptors)
            if not part:
                raise HandshakeFailed(f"the server at {address} hung up during the handshake")
            data += part
            if not _handshake.looks_right(data):
                raise HandshakeFailed(f"the program at {address} does not speak proclink")
        welcome = _handshake.unpack(data, Kind.WELCOME)
    except ProclinkError:
        raise
    except TimeoutError:
        raise NoServer(f"the server at {address} did not answer in time") from None
    except OSError as error:
        raise HandshakeFailed(f"the handshake with {address} failed: {error}") from error
    refused = _handshake.refusal(welcome, str(address))
    if refused is not None:
        raise refused
    if len(descriptors.handles) != expected_descriptors:
        raise HandshakeFailed(f"the server at {address} sent the wrong descriptors")
    return welcome


def _receive_part(sock: socket.socket, size: int, descriptors: _core.Descriptors) -> bytes:
    if sock.family != socket.AF_UNIX:
        return sock.recv(size)
    sock.recv(1, socket.MSG_PEEK)  # waits
    return descriptors.receive(sock.fileno(), size)


def ready(sock: socket.socket, scheme_number: int, address: Address) -> None:
    """Ends the handshake.

    Raises:
        HandshakeFailed: The bound end went away meanwhile.
    """
    try:
        sock.sendall(_handshake.pack(Introduction(Kind.READY, scheme_number)))
    except OSError as error:
        raise HandshakeFailed(f"the handshake with {address} failed: {error}") from error
