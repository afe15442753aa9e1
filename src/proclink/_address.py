"""URLs: which transport, and where."""

from __future__ import annotations

import os
from typing import NamedTuple

from proclink._errors import AddressError

SCHEMES = ("pipe", "shm", "tcp", "memory")
LONGEST_NAME = 200


class Address(NamedTuple):
    """A parsed URL.

    Attributes:
        scheme: One of ``SCHEMES``.
        name: The name of a ``pipe``, ``shm`` or ``memory`` address, else empty.
        path: The absolute path of ``pipe:///path``, else empty.
        host: The host of a ``tcp`` address, else empty.
        port: The port of a ``tcp`` address, 0 to 65535, else 0.
    """

    scheme: str
    name: str = ""
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "tcp":
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"tcp://{host}:{self.port}"
        return f"{self.scheme}://{self.name or self.path}"


def parse(url: str) -> Address:
    """Parses a URL.

    Names are taken as they stand, Unicode included; nothing in them is decoded.

    Raises:
        AddressError: The URL is not a valid address.
        TypeError: The URL is not a string.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a string such as 'pipe://orders', not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise AddressError(f"{url!r} is not a URL; write it like 'pipe://orders'")
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise AddressError(f"{url!r} has an unknown scheme; the schemes are {known}")
    rest, _, query = rest.partition("?")
    if query:
        raise AddressError(f"{url!r} has options, and {scheme}:// knows none")
    if scheme == "tcp":
        return _parse_tcp(url, rest)
    if scheme == "pipe" and rest.startswith("/"):
        return _parse_path(url, rest)
    _check_name(url, rest)
    return Address(scheme, name=rest)


def _check_name(url: str, name: str) -> None:
    if not name:
        raise AddressError(f"{url!r} has no name; write it like 'pipe://orders'")
    if len(name) > LONGEST_NAME:
        raise AddressError(f"a name has at most {LONGEST_NAME} characters, this one {len(name)}")
    if not name.isprintable() or "/" in name or "\\" in name:
        raise AddressError(f"the name in {url!r} has a slash or an unprintable character")
    if not name.strip(". "):
        raise AddressError(f"the name in {url!r} has only dots and spaces")


def _parse_path(url: str, path: str) -> Address:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise AddressError(f"no file system takes the path in {url!r}") from None
    # normpath() keeps two leading slashes apart, which POSIX leaves to the system.
    if "\0" in path or path.endswith("/") or os.path.normpath(path).replace("//", "/") != path:
        raise AddressError(f"the path in {url!r} is not the plain absolute path of a file")
    return Address("pipe", path=path)


def _parse_tcp(url: str, rest: str) -> Address:
    host, separator, port_text = rest.rpartition(":")
    if not separator or not host:
        raise AddressError(f"{url!r} needs a host and a port, like 'tcp://127.0.0.1:5000'")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"an IPv6 address in {url!r} needs brackets, like 'tcp://[::1]:5000'")
    if not host or not host.isprintable() or any(c in host for c in "/ @[]"):
        raise AddressError(f"{url!r} has no valid host")
    if not (
        port_text.isascii()
        and port_text.isdigit()
        and len(port_text) <= 5
        and int(port_text) <= 65535
    ):
        raise AddressError(f"the port in {url!r} is not a number from 0 to 65535")
    return Address("tcp", host=host, port=int(port_text))
