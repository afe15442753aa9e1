"""URLs."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import proclink
from proclink._address import LONGEST_NAME, Address, parse

GOOD = {
    "pipe://orders": Address("pipe", name="orders"),
    "shm://quotes": Address("shm", name="quotes"),
    "memory://x": Address("memory", name="x"),
    "pipe://a b": Address("pipe", name="a b"),
    "pipe://größe": Address("pipe", name="größe"),
    "pipe://a:b@c#d": Address("pipe", name="a:b@c#d"),
    "pipe://%2F": Address("pipe", name="%2F"),
    "pipe://..a": Address("pipe", name="..a"),
    "shm://" + "x" * LONGEST_NAME: Address("shm", name="x" * LONGEST_NAME),
    "shm://" + "é" * LONGEST_NAME: Address("shm", name="é" * LONGEST_NAME),
    "pipe:///tmp/orders": Address("pipe", path="/tmp/orders"),
    "pipe:///x": Address("pipe", path="/x"),
    "pipe:///tmp/a b/ü": Address("pipe", path="/tmp/a b/ü"),
    "tcp://127.0.0.1:5000": Address("tcp", host="127.0.0.1", port=5000),
    "tcp://localhost:0": Address("tcp", host="localhost", port=0),
    "tcp://example.org:65535": Address("tcp", host="example.org", port=65535),
    "tcp://[::1]:80": Address("tcp", host="::1", port=80),
}
BAD = [
    "",
    "orders",
    "://",
    "://orders",
    "pipe",
    "pipe:",
    "pipe:/orders",
    "pipe://",
    "PIPE://orders",
    " pipe://orders",
    "http://orders",
    "shm:///tmp/orders",
    "memory:///x",
    "pipe://a/b",
    "pipe://a\\b",
    "pipe://.",
    "pipe://..",
    "pipe://. .",
    "pipe:// ",
    "pipe://a\nb",
    "pipe://a\0b",
    "pipe://\ud800",
    "shm://" + "x" * (LONGEST_NAME + 1),
    "pipe://orders?x=1",
    "tcp://127.0.0.1:1?nodelay",
    "pipe:///",
    "pipe:////tmp/x",
    "pipe:///tmp/",
    "pipe:///tmp/../x",
    "pipe:///tmp/./x",
    "pipe:///tmp//x",
    "pipe:///tmp/a\0b",
    "tcp://",
    "tcp://localhost",
    "tcp://:5000",
    "tcp://localhost:",
    "tcp://localhost:http",
    "tcp://localhost:-1",
    "tcp://localhost:+1",
    "tcp://localhost: 1",
    "tcp://localhost:65536",
    "tcp://localhost:1_0",
    "tcp://localhost:٣",
    "tcp://localhost:²",
    "tcp://::1:80",
    "tcp://[]:80",
    "tcp://[::1:80",
    "tcp://user@host:80",
    "tcp://a b:80",
    "tcp://host/path:80",
    "tcp://localhost:" + "9" * 5000,
]


@pytest.mark.parametrize(("url", "address"), GOOD.items())
def test_a_good_url(url: str, address: Address) -> None:
    assert parse(url) == address
    assert str(address) == url
    assert parse(str(address)) == address


@pytest.mark.parametrize("url", BAD, ids=lambda url: ascii(url[:40]))
def test_a_bad_url(url: str) -> None:
    with pytest.raises(proclink.AddressError):
        parse(url)
    for call in (proclink.bind, proclink.listen, proclink.connect):
        with pytest.raises(proclink.AddressError):
            call(url)


@pytest.mark.parametrize("url", [None, 5, b"pipe://orders", ["pipe://orders"]])
def test_no_string_at_all(url: object) -> None:
    with pytest.raises(TypeError):
        parse(url)  # type: ignore[arg-type]


def test_the_message_shows_the_url_and_the_way_out() -> None:
    with pytest.raises(proclink.AddressError, match=r"'ftp://x'.*pipe://, shm://"):
        parse("ftp://x")
    with pytest.raises(proclink.AddressError, match=r"write it like 'pipe://orders'"):
        parse("orders")
    with pytest.raises(proclink.AddressError, match=r"brackets"):
        parse("tcp://::1:80")


URLS = st.builds(
    lambda scheme, separator, rest: scheme + separator + rest,
    st.sampled_from(["pipe", "shm", "tcp", "memory", "http", ""]),
    st.sampled_from(["://", ":", "//", ":///", ""]),
    st.text() | st.from_regex(r"[\[\]:./\w?@ -]{0,20}:[0-9]{0,6}"),
)


@given(st.text() | URLS)
@example("tcp://[]:1")
@example("pipe://?")
@example("tcp://[[::1]]:1")
def test_anything_is_an_address_or_an_address_error(url: str) -> None:
    try:
        address = parse(url)
    except proclink.AddressError:
        return
    assert address.scheme in ("pipe", "shm", "tcp", "memory")
    assert bool(address.name) + bool(address.path) + bool(address.host) == 1
    assert 0 <= address.port <= 65535
    assert parse(str(address)) == address
