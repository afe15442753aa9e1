"""The messages of the handshake, without I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proclink
from proclink import _handshake
from proclink._handshake import Answer, Introduction, Kind, looks_right, pack, refusal, unpack

U64 = st.integers(0, 2**64 - 1)
INTRODUCTIONS = st.builds(
    Introduction,
    kind=st.sampled_from(Kind),
    transport=st.integers(0, 255),
    max_message=U64,
    ring_size=U64,
    answer=st.sampled_from(Answer),
    version=st.just(_handshake.VERSION),
    cpus=st.integers(0, 2**256 - 1),
)


@given(INTRODUCTIONS)
def test_what_is_packed_is_unpacked(introduction: Introduction) -> None:
    data = pack(introduction)
    assert len(data) == _handshake.SIZE == 64
    assert unpack(data, introduction.kind) == introduction


def test_the_layout_is_as_documented() -> None:
    data = pack(Introduction(Kind.WELCOME, 2, 0x1122334455667788, 65536, Answer.BUSY))
    assert data[:8] == b"proclink"
    assert data[8:10] == b"\x01\x00"
    assert data[10] == 2
    assert data[11] == 2
    assert data[12:16] == b"\x03\x00\x00\x00"
    assert data[16:24] == bytes.fromhex("8877665544332211")
    assert data[24:32] == (65536).to_bytes(8, "little")
    assert data[32:] == bytes(32)


@given(st.binary(min_size=64, max_size=64), st.sampled_from(Kind))
def test_noise_is_refused(data: bytes, expected: Kind) -> None:
    with pytest.raises((proclink.HandshakeFailed, proclink.VersionMismatch)):
        unpack(data if data[:8] != b"proclink" else bytes(64), expected)


@given(st.binary(min_size=56, max_size=56), st.sampled_from(Kind))
def test_noise_behind_the_magic_is_refused_or_read(data: bytes, expected: Kind) -> None:
    try:
        introduction = unpack(b"proclink" + data, expected)
    except (proclink.HandshakeFailed, proclink.VersionMismatch):
        return
    assert introduction.kind is expected


@given(
    st.integers(0, 5),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 10),
    st.sampled_from(Kind),
)
def test_noise_in_the_fields_is_refused_or_read(
    version: int, kind: int, transport: int, answer: int, expected: Kind
) -> None:
    data = b"proclink" + version.to_bytes(2, "little") + bytes([kind, transport])
    data += answer.to_bytes(4, "little") + bytes(48)
    if version != _handshake.VERSION:
        with pytest.raises(proclink.VersionMismatch) as caught:
            unpack(data, expected)
        assert (caught.value.ours, caught.value.theirs) == (_handshake.VERSION, version)
    elif kind != expected or answer not in list(Answer):
        with pytest.raises(proclink.HandshakeFailed):
            unpack(data, expected)
    else:
        assert unpack(data, expected) == Introduction(Kind(kind), transport, answer=Answer(answer))


@pytest.mark.parametrize("expected", Kind)
@pytest.mark.parametrize("sent", Kind)
def test_messages_out_of_turn(sent: Kind, expected: Kind) -> None:
    data = pack(Introduction(sent, 1))
    if sent is expected:
        assert unpack(data, expected).kind is expected
    else:
        with pytest.raises(proclink.HandshakeFailed):
            unpack(data, expected)


@given(st.binary(max_size=80))
def test_the_beginning_tells_whether_it_may_be_proclink(start: bytes) -> None:
    assert looks_right(start) == (b"proclink".startswith(start) or start.startswith(b"proclink"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer.OTHER_VERSION, proclink.VersionMismatch),
        (Answer.OTHER_TRANSPORT, proclink.HandshakeFailed),
        (Answer.BUSY, proclink.Busy),
        (Answer.NOT_ALLOWED, proclink.PeerRefused),
        (Answer.NO_MEMORY, proclink.ConnectionFailed),
    ],
)
def test_every_refusal_has_its_error(answer: Answer, error: type[Exception]) -> None:
    refused = refusal(Introduction(Kind.WELCOME, 1, answer=answer), "pipe://x")
    assert type(refused) is error


def test_a_welcome_is_no_refusal() -> None:
    assert refusal(Introduction(Kind.WELCOME, 1), "pipe://x") is None
