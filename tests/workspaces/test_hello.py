"""The name that a TLS client asks for is read however it is cut; nothing else passes for one."""

import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.workspaces.hello import NoHello, name_wanted


def hello(name: str | None) -> bytes:
    """What Python's own client says first."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


WHOLE = hello("allowed.test")
MESSAGE = WHOLE[5:]


def in_records(message: bytes, size: int) -> bytes:
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


def with_extension(kind: int, content: bytes) -> bytes:
    """The same hello with one more extension at its end."""
    more = struct.pack(">HH", kind, len(content)) + content
    at = 4 + 2 + 32  # to the session
    at += 1 + MESSAGE[at]
    at += 2 + int.from_bytes(MESSAGE[at : at + 2])
    at += 1 + MESSAGE[at]
    size = int.from_bytes(MESSAGE[at : at + 2]) + len(more)
    body = MESSAGE[4:at] + struct.pack(">H", size) + MESSAGE[at + 2 :] + more
    return in_records(b"\x01" + len(body).to_bytes(3) + body, 1 << 14)


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 14])
def test_the_name_is_read_from_records_of_any_size(size: int) -> None:
    assert name_wanted(in_records(MESSAGE, size)) == "allowed.test"
    assert name_wanted(in_records(MESSAGE, size) + b"more") == "allowed.test"


def test_a_part_is_never_enough_and_never_wrong() -> None:
    assert {name_wanted(WHOLE[:n]) for n in range(len(WHOLE))} == {None}


def test_a_name_in_capitals_is_the_same_name() -> None:
    assert name_wanted(hello("ALLOWED.test")) == "allowed.test"


def test_hiding_the_name_or_giving_two_or_none_is_refused() -> None:
    second = struct.pack(">HBH", 8, 0, 5) + b"other"
    assert name_wanted(with_extension(0x1234, b"")) == "allowed.test"
    for data, why in (
        (with_extension(0xFE0D, b"\x01"), "encrypts"),
        (with_extension(0, second), "two servers"),
        (hello(None), "names no server"),
        (b"GET / HTTP/1.1\r\n\r\n", "not TLS"),
        (b"SSH-2.0-x", "not TLS"),
        (b"\x16\x03\x01\x00\x00", "empty record"),
        (b"\x16\x03\x01\x00\x01\x02", "does not begin with a hello"),
    ):
        with pytest.raises(NoHello, match=why):
            name_wanted(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_name_a_refusal_or_a_wait(at: int, value: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] = value
    try:
        name = name_wanted(bytes(changed))
    except NoHello:
        return
    assert name is None or len(name) <= len(WHOLE)
