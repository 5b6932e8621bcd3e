"""The host's side of the runner: a `Workspace` over one byte stream. Starts and removes nothing."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from .client import RunnerClient
from .errors import DiskFull, FileRefused, NotStarted, WorkspaceError, WorkspaceGone
from .types import WorkspaceSpec

FRAME = struct.Struct(">II")
READY_S = 60.0
RENEW_S = 5.0
"""A workspace that takes longer to be emptied is not worth it."""
BASE_ENV = {
    "HOME": "/home/agent",
    "USER": "agent",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Writer(Protocol):
    """What is used of an `asyncio.StreamWriter`."""

    def write(self, data: bytes, /) -> None:
        """Put bytes in line."""
        ...

    async def drain(self) -> None:
        """Wait until the line is short."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class RunnerWorkspace(RunnerClient):
    """A workspace whose runner is at the other end of a stream."""

    def __init__(
        self,
        spec: WorkspaceSpec,
        reader: asyncio.StreamReader,
        writer: Writer,
        *,
        remove: Callable[[], Awaitable[None]],
        last_words: Callable[[], str],
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Args:
        env: what this kind of workspace adds to `BASE_ENV`.
        remove: waits until what runs the workspace is gone, once its stream is closed.
        last_words: what the runner wrote to its standard error.
        """
        self.spec = spec
        self._env = {**BASE_ENV, **env, **spec.env}
        self._reader, self._writer = reader, writer
        self._remove, self._last_words = remove, last_words
        self._turn = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._at_start: dict[str, str] = {}

    async def begin(self) -> None:
        """Wait for the runner and lay the seed."""
        try:
            async with asyncio.timeout(READY_S):
                self._at_start = (await self._receive())[0]["state"]
        except TimeoutError:
            raise WorkspaceGone(f"the runner did not answer within {READY_S:g} s") from None
        if self.spec.seed:
            await self.put_tree(self.spec.seed)

    @property
    def env(self) -> Mapping[str, str]:
        """See `RunnerClient.env`."""
        return self._env

    async def ping(self) -> None:
        """Raise `WorkspaceGone` unless the runner answers."""
        await self.request({"op": "ping"})

    async def renew(self) -> bool:
        """End all processes, empty all writable places, start the lifetime anew.

        Returns: whether everything is as it was at the start, before a seed was laid. False also
        when it is busy, gone or slow; then it must not be used again.
        """
        if self._turn.locked():
            return False
        try:
            reply, _ = await self.request({"op": "renew"}, patience_s=RENEW_S)
        except WorkspaceError:
            return False
        return bool(reply["state"] == self._at_start)

    async def close(self) -> None:
        """See `Workspace.close`."""
        if self._closing is None:
            self._writer.close()
            self._closing = asyncio.create_task(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        await self._remove()

    async def request(
        self, header: Mapping[str, Any], payload: bytes = b"", *, patience_s: float = 300.0
    ) -> tuple[dict[str, Any], bytes]:
        """Send one request and wait for its reply; a cancelled caller leaves the stream in step."""
        exchange = asyncio.create_task(self._exchange(header, payload, patience_s))
        exchange.add_done_callback(_retrieve)
        reply, data = await asyncio.shield(exchange)
        if "error" in reply:
            raise _ERRORS[reply["error"]](reply["message"])
        return reply, data

    async def _exchange(
        self, request: Mapping[str, Any], payload: bytes, patience_s: float
    ) -> tuple[dict[str, Any], bytes]:
        async with self._turn:
            if self._closing is not None:
                raise WorkspaceGone("the workspace is closed")
            header = json.dumps(request).encode()
            try:
                async with asyncio.timeout(patience_s):
                    self._writer.write(FRAME.pack(len(header), len(payload)) + header)
                    self._writer.write(payload)
                    await self._writer.drain()
                    return await self._reply()
            except TimeoutError:
                self._writer.close()
                raise WorkspaceGone(f"the runner was silent for {patience_s:g} s") from None
            except OSError as error:
                raise self._gone(str(error)) from error

    async def _reply(self) -> tuple[dict[str, Any], bytes]:
        """One whole reply; a long one comes in pieces."""
        header, payload = await self._receive()
        if "more" not in header:
            return header, payload
        pieces = [payload]
        while "more" in header:
            header, payload = await self._receive()
            pieces.append(payload)
        return header, b"".join(pieces)

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        try:
            header_size, payload_size = FRAME.unpack(await self._reader.readexactly(FRAME.size))
            header = json.loads(await self._reader.readexactly(header_size))
            return header, await self._reader.readexactly(payload_size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise self._gone("its stream ended") from error

    def _gone(self, why: str) -> WorkspaceGone:
        words = self._last_words().strip()
        return WorkspaceGone(f"the workspace is gone: {why}" + (f"; {words}" if words else ""))


_ERRORS: dict[str, Callable[[str], Exception]] = {
    "missing": FileNotFoundError,
    "not_started": NotStarted,
    "full": DiskFull,
    "refused": FileRefused,
}


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the exception of an exchange whose caller was cancelled as seen."""
    if not task.cancelled():
        task.exception()
