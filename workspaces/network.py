"""The host's end of a workspace's way out: its one stream, split into control and connections.

`runner_net.py` is the other end. What a connection may reach is for `proxy.py` to say; nothing here
opens a socket. Each connection has a window of bytes in flight in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import MappingProxyType

import certifi

from .base import Workspace
from .channel import Writer
from .runner_net import AMOUNT, CREDIT, DATA, END, HEAD, MOST_OPEN, OPEN, PROXY_PORT, WINDOW

CERTIFICATES = "/home/agent/.certificates.pem"
"""Where the authorities lie that the host trusts; images need have none."""
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_NEAR = "localhost,127.0.0.1,::1"
PROXY_ENV = MappingProxyType(
    {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), _NEAR),
        **dict.fromkeys(
            ("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
            CERTIFICATES,
        ),
    }
)
"""Tells commands where the way out begins and whom to trust. Who ignores it gets nowhere."""
CHUNK = 1 << 14
MOST_BYTES = 2 * WINDOW
"""A larger frame of a connection is no frame of ours."""


async def equip(workspace: Workspace) -> None:
    """Lay what a workspace with a way out needs, unless it has none. Raises as `Workspace.put`."""
    if workspace.spec.network:
        trusted = Path(ssl.get_default_verify_paths().cafile or certifi.where())
        await workspace.put(CERTIFICATES, trusted.read_bytes())


class Connection:
    """A connection of a command, as the host sees it."""

    def __init__(self, number: int, say: Callable[[int, int, bytes], None]) -> None:
        self._number, self._say = number, say
        self._came = asyncio.StreamReader()
        self._may_send = WINDOW
        self._room = asyncio.Event()
        self.ended = False
        """True when the command has hung up."""

    def take(self, kind: int, content: bytes) -> None:
        """Act on a frame of this connection."""
        if kind == DATA:
            self._came.feed_data(content)
        elif kind == CREDIT:
            self._may_send += AMOUNT.unpack(content)[0]
        else:
            self.ended = True
            self._came.feed_eof()
        self._room.set()

    async def read(self) -> bytes:
        """What came; empty at the end."""
        data = await self._came.read(CHUNK)
        if data:
            self._say(self._number, CREDIT, AMOUNT.pack(len(data)))
        return data

    async def send(self, data: bytes) -> None:
        """Hand bytes to the command, as fast as it takes them.

        Raises:
            ConnectionError: it has hung up.
        """
        while data:
            while self._may_send == 0 and not self.ended:
                self._room.clear()
                await self._room.wait()
            if self.ended:
                raise ConnectionError("the command has hung up")
            part = data[: min(CHUNK, self._may_send)]
            self._may_send -= len(part)
            self._say(self._number, DATA, part)
            data = data[len(part) :]

    def end(self) -> None:
        """Say that nothing more comes."""
        self._say(self._number, END, b"")


class Carriage:
    """Splits the stream of a runner. It is the writer of the control stream itself."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: Writer,
        serve: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Args:
        serve: called for each connection; it is ended when this returns.
        """
        self.control = asyncio.StreamReader()
        """What the runner says."""
        self._reader, self._writer, self._serve = reader, writer, serve
        self._open: dict[int, Connection] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._pump = asyncio.create_task(self._take())

    def write(self, data: bytes, /) -> None:
        """Say something to the runner."""
        if data:
            self._say(0, DATA, data)

    async def drain(self) -> None:
        """Wait until the line is short."""
        await self._writer.drain()

    def close(self) -> None:
        """Hang up on the runner and on every connection."""
        self._writer.close()
        for task in self._serving:
            task.cancel()

    async def closed(self) -> None:
        """Wait until the stream has ended and nobody is served any more."""
        await self._pump
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _say(self, number: int, kind: int, content: bytes) -> None:
        self._writer.write(HEAD.pack(number, kind, len(content)))
        self._writer.write(content)

    async def _take(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                number, kind, size = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                if number and size > MOST_BYTES:
                    break
                content = await self._reader.readexactly(size)
                if number == 0:
                    self.control.feed_data(content)
                elif kind == OPEN and len(self._open) < MOST_OPEN:
                    self._begin(number)
                elif number in self._open:
                    self._open[number].take(kind, content)
        self.control.feed_eof()
        for one in self._open.values():
            one.take(END, b"")
        for task in self._serving:
            task.cancel()

    def _begin(self, number: int) -> None:
        self._open[number] = Connection(number, self._say)
        task = asyncio.create_task(self._attend(number))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _attend(self, number: int) -> None:
        try:
            await self._serve(self._open[number])
        finally:
            self._open.pop(number).end()
