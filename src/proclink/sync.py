"""Links for ordinary (blocking) code: :func:`bind`, :func:`connect`, :func:`listen`."""

from __future__ import annotations

import logging

from proclink import _address, _core
from proclink._aside import report
from proclink._binding import Binding
from proclink._channels import Channels
from proclink._link import Link, link_of
from proclink._listener import Listener
from proclink._options import MEBIBYTE, Options, Spin
from proclink.transports import transport_for


def bind(
    url: str,
    *,
    max_message: int = 64 * MEBIBYTE,
    ring_size: int = MEBIBYTE,
    spin: Spin = "auto",
    handshake_timeout: float = 5.0,
    logger: logging.Logger | None = None,
) -> Link:
    """The one-to-one end that owns the address and waits for its peer, and for the next one.

    Returns at once; the first call that needs a peer waits for it. While a peer is there, another
    one that connects gets :class:`Busy`.

    Args:
        url: ``pipe://name``, ``pipe:///absolute/path``, ``shm://name``, ``tcp://host:port`` (port
            0 lets the system pick one; see ``link.address``) or ``memory://name``.
        max_message: The longest message to accept, in bytes.
        ring_size: On ``shm``, bytes a direction; a power of two from 64 KiB to 4 GiB.
        spin: How long a wait looks before it sleeps: ``"auto"``, 0, or microseconds.
        handshake_timeout: Seconds a newcomer has to introduce itself.
        logger: Where to log; the logger ``proclink`` by default.

    Raises:
        AddressError: The URL makes no sense.
        AddressInUse: A live process owns the address.
        AddressBlocked: A file that is not proclink's is in the way.
        RuntimeDirectoryError: There is no private directory for names.

    Example:
        >>> with proclink.bind("shm://quotes") as link:
        ...     for message in link:
        ...         with contextlib.suppress(proclink.Disconnected):
        ...             link.send(message)
    """
    options = Options(max_message, ring_size, spin, handshake_timeout, logger)
    channels = Channels(waits=True)
    binding = Binding(url, options, channels)
    report(options.logger, logging.INFO, "bound to %s", binding.url)
    return Link(binding.url, options, channels, binding)


def connect(
    url: str,
    *,
    timeout: float | None = 10.0,
    max_message: int = 64 * MEBIBYTE,
    max_ring_size: int = 256 * MEBIBYTE,
    spin: Spin = "auto",
    handshake_timeout: float = 5.0,
    logger: logging.Logger | None = None,
) -> Link:
    """Connects to the process that bound or listens at the address.

    Args:
        url: See :func:`bind`, which also tells the other arguments.
        timeout: Seconds to wait for the server to appear, ``None`` for ever, 0 to try once. What
            may pass is tried again: no such name yet, a server that hangs up or gives no answer
            for ``handshake_timeout`` seconds, a host that cannot be reached or is unknown.
        max_ring_size: On ``shm``, the largest ``ring_size`` of the server to adopt, in bytes.

    Raises:
        NoServer: No server answered in time; its cause is that of the last attempt.
        Busy: The address is a one-to-one end and has its peer.
        PeerRefused: One end runs as a user the other does not allow.
        HandshakeFailed: What listens there does not speak proclink, or its rings are larger than
            ``max_ring_size``.
        VersionMismatch: It speaks another version of it.
        AddressError: The URL makes no sense.

    Example:
        >>> with proclink.connect("shm://quotes") as link:
        ...     link.send(b"ping")
        ...     reply = link.recv(timeout=1.0)
    """
    timeout = _core.seconds(timeout)
    options = Options(max_message, MEBIBYTE, spin, handshake_timeout, logger, max_ring_size)
    address = _address.parse(url)
    connection = transport_for(address).connect(address, options, timeout)
    link = link_of(url, options, connection)
    report(options.logger, logging.INFO, "connected to %s: %s", url, connection.peer)
    return link


def listen(
    url: str,
    *,
    max_message: int = 64 * MEBIBYTE,
    ring_size: int = MEBIBYTE,
    spin: Spin = "auto",
    handshake_timeout: float = 5.0,
    logger: logging.Logger | None = None,
) -> Listener:
    """Listens for any number of clients; ``accept()`` gives a link for each.

    Arguments and errors are those of :func:`bind`.

    Example:
        >>> with proclink.listen("pipe://orders") as listener:
        ...     link = listener.accept()
    """
    return Listener(url, Options(max_message, ring_size, spin, handshake_timeout, logger))
