"""The bound side of the transports with a socket: accepting, and its half of the handshake.

Apart from the connecting side, which needs no asyncio.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys

from proclink import _fork, _handshake
from proclink._address import Address
from proclink._aside import report_later
from proclink._errors import (
    ConnectionFailed,
    HandshakeFailed,
    PeerRefused,
    ProclinkError,
    VersionMismatch,
)
from proclink._handshake import Answer, Introduction, Kind
from proclink._options import Options
from proclink._peer import Peer
from proclink._spin import cpu_mask
from proclink._supervisor import supervisor
from proclink.transports._contract import Connection, Gate
from proclink.transports._sockets import SocketScheme, agree

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_WITHOUT_RESOURCES = 0.1
_LONGEST_DECISION = 1.0


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
            if self._gate.closed:  # no answer: it tries again, at the next one's perhaps
                raise ConnectionFailed("the address was given back meanwhile")
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
            socket.send_fds(sock, data, descriptors, socket.MSG_NOSIGNAL)
        else:
            sock.sendmsg(data, (), socket.MSG_NOSIGNAL)

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
