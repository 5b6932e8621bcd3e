"""The first words of a TLS client, read for the name of the server that it wants. Decrypts nothing.

Only what has to be known is parsed, and whatever is not as RFC 8446 says is refused.
"""

from __future__ import annotations

MOST_BYTES = 1 << 16
RECORD_HEAD = 5
HANDSHAKE, CLIENT_HELLO = 22, 1
SERVER_NAME, ENCRYPTED_HELLO = 0, 0xFE0D
UNRECOGNISED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
"""The alert that a server sends to a client that asked for a name it does not serve."""


class NoHello(ValueError):
    """Bytes that do not begin as a TLS client does."""


class _Bytes:
    """Takes lengths and what they count from the front; what is missing is an error."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, n: int) -> bytes:
        if len(self._data) < n:
            raise NoHello("its hello is cut short")
        taken, self._data = self._data[:n], self._data[n:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def counted(self, size: int) -> _Bytes:
        """What a length of `size` bytes counts."""
        return _Bytes(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data))


def name_wanted(data: bytes) -> str | None:
    """The server name in a ClientHello; None = more bytes are needed.

    Raises:
        NoHello: it is none, it names nobody, or it hides whom it means.
    """
    hello = _hello(data)
    if hello is None:
        return None
    hello.take(2 + 32)  # version, random
    for size in (1, 2, 1):  # session, ciphers, compressions
        hello.counted(size)
    if not hello:
        raise NoHello("it names no server")
    found, extensions = "", hello.counted(2)
    while extensions:
        kind, content = extensions.number(2), extensions.counted(2)
        if kind == ENCRYPTED_HELLO:
            raise NoHello("it encrypts which server it wants (ECH)")
        if kind == SERVER_NAME:
            if found:
                raise NoHello("it names two servers")
            found = _server(content)
    if not found:
        raise NoHello("it names no server")
    return found


def _hello(data: bytes) -> _Bytes | None:
    """The body of the ClientHello, put together from its records; None = it is not whole yet."""
    message = b""
    while True:
        if data[:1] not in (b"", bytes([HANDSHAKE])) or data[1:2] not in (b"", b"\x03"):
            raise NoHello("it is not TLS")
        size = int.from_bytes(data[3:RECORD_HEAD])
        if len(data) < RECORD_HEAD or len(data) < RECORD_HEAD + size:
            return None
        if size == 0:
            raise NoHello("it has an empty record")
        message += data[RECORD_HEAD : RECORD_HEAD + size]
        data = data[RECORD_HEAD + size :]
        if message[0] != CLIENT_HELLO:
            raise NoHello("it does not begin with a hello")
        if len(message) >= 4 and len(message) - 4 >= (length := int.from_bytes(message[1:4])):
            return _Bytes(message[4 : 4 + length])


def _server(content: _Bytes) -> str:
    names = content.counted(2)
    kind, name = names.number(1), names.counted(2).rest()
    if kind != 0 or names or content:
        raise NoHello("its server name is not one host name")
    return name.decode("ascii", errors="replace").lower()
