"""What goes on in a workspace between commands: services, terminals, shells; the host's side.

They end with their workspace, and before it on `stop`, at their own deadline, or when they are
done. A terminal's screen is made here from what it wrote; see `screen.py` for what is understood.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import FileRefused, NotStarted
from .screen import KEYS, Screen
from .types import KIB, MIB, ErrorKind, ExecResult

POLL_S = 0.02
SENT_BYTES = 64 * KIB
"""Of one message to a service: as much as a pipe holds."""
PATIENCE_S = 60.0
"""How long after its own deadline the runner may stay silent before it counts as gone."""


class Link(Protocol):
    """What reaches a runner."""

    async def request(
        self, header: Mapping[str, Any], payload: bytes = b"", *, patience_s: float = 300.0
    ) -> tuple[dict[str, Any], bytes]:
        """Ask for one operation and wait for its reply.

        Raises: as the operation of `Workspace`; `WorkspaceGone` when there is no reply.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How a service does, and a part of what it wrote."""

    running: bool
    exit_code: int | None
    """None = it runs; 128 + n when signal n ended it."""
    error: ErrorKind | None
    data: bytes = field(repr=False)
    start: int
    """Where in its output `data` begins; later than asked for when the log has lost that part."""
    end: int
    """How much it wrote until now."""

    @property
    def text(self) -> str:
        """What it wrote, as text; bytes that are not UTF-8 are replaced."""
        return self.data.decode(errors="replace")


class Service:
    """A process that outlives the command that asked for it. Its output is a log."""

    def __init__(self, link: Link, number: int) -> None:
        self.number = number
        self._link = link

    async def report(self, *, offset: int = 0, max_bytes: int = 256 * KIB) -> Report:
        """How it does, and its log from an offset on; the log keeps the last megabyte.

        Raises:
            FileRefused: it was stopped.
            WorkspaceGone: the workspace itself failed.
        """
        request = {"op": "log", "service": self.number, "offset": offset, "max_bytes": max_bytes}
        reply, data = await self._link.request(request)
        return Report(
            running=reply["running"],
            exit_code=reply["exit_code"],
            error=error_of(reply),
            data=data,
            start=reply["start"],
            end=reply["end"],
        )

    async def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """Wait until its log matches a regular expression, a line that says "listening" say.

        Raises:
            TimeoutError: it does not in time.
            NotStarted: it ended before.
        """
        give_up = time.monotonic() + timeout_s
        seen, offset = b"", 0
        while True:
            report = await self.report(offset=offset, max_bytes=MIB)
            seen = (seen + report.data)[-2 * MIB :]
            offset = report.start + len(report.data)
            text = seen.decode(errors="replace")
            if match := re.search(pattern, text):
                return match
            if offset >= report.end and not report.running:
                raise NotStarted(
                    f"expected a log that matches {pattern!r}, but the service ended with exit "
                    f"code {report.exit_code}: {text[-500:]}"
                )
            if time.monotonic() > give_up:
                raise TimeoutError(f"no {pattern!r} in the log within {timeout_s:g} s")
            if offset >= report.end:
                await asyncio.sleep(POLL_S)

    async def send(self, data: bytes, *, timeout_s: float = 10.0) -> None:
        """Write to its standard input.

        Raises:
            TimeoutError: it read nothing for so long.
            BrokenPipeError: it has closed its input, or ended.
        """
        give_up = time.monotonic() + timeout_s
        while data:
            reply = await self._send(data[:SENT_BYTES])
            data = data[reply["sent"] :]
            if data and reply["closed"]:
                raise BrokenPipeError(f"{len(data)} bytes were left when the service hung up")
            if reply["sent"]:
                give_up = time.monotonic() + timeout_s
            elif time.monotonic() > give_up:
                raise TimeoutError(f"the service left {len(data)} bytes for {timeout_s:g} s")

    async def close_input(self) -> None:
        """Let it see the end of its standard input."""
        await self._send(b"", close=True)

    async def stop(self) -> None:
        """End it and all it started; its log goes with the workspace. Safe to call twice."""
        try:
            await self._link.request({"op": "stop", "service": self.number})
        except FileRefused:  # it was stopped already
            return

    async def _send(
        self, data: bytes, *, close: bool = False, size: list[int] | None = None
    ) -> dict[str, Any]:
        request = {"op": "send", "service": self.number, "close": close, "size": size}
        return (await self._link.request(request, data))[0]


class Terminal(Service):
    """A program at a terminal: keys go in, a screen comes out."""

    def __init__(self, link: Link, number: int, *, rows: int, columns: int) -> None:
        super().__init__(link, number)
        self._screen = Screen(rows, columns)
        self._seen = 0

    async def send_keys(self, *keys: str) -> None:
        """Press keys: names of `screen.KEYS` ("Enter", "C-c", "Up"), or text as it stands."""
        await self.send(b"".join(KEYS.get(key, key.encode()) for key in keys))

    async def screen(self) -> Screen:
        """What is on the screen now."""
        while True:
            report = await self.report(offset=self._seen)
            if report.start > self._seen:  # it wrote faster than we looked
                self._screen.reset()
            self._screen.feed(report.data)
            self._seen = report.start + len(report.data)
            if self._seen >= report.end:
                return self._screen

    async def wait_for_screen(self, pattern: str, *, timeout_s: float) -> Screen:
        """Wait until the screen matches a regular expression.

        Raises:
            TimeoutError: it does not in time; the message ends with the screen.
        """
        give_up = time.monotonic() + timeout_s
        while not re.search(pattern, (await self.screen()).text, re.MULTILINE):
            if time.monotonic() > give_up:
                raise TimeoutError(f"no {pattern!r} on the screen:\n{self._screen.text}")
            await asyncio.sleep(POLL_S)
        return self._screen

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size; the program is told."""
        await self._send(b"", size=[rows, columns])
        self._screen.resize(rows, columns)


class Shell:
    """A bash that keeps its folder, variables, functions and jobs from command to command."""

    def __init__(self, link: Link, number: int, *, command_s: float) -> None:
        self.number = number
        self.alive = True
        """False once the shell itself has ended: by `exit`, or killed with a command that hung."""
        self._link, self._command_s = link, command_s

    async def run(self, command: str, *, timeout_s: float | None = None) -> ExecResult:
        """Run a command line; what it leaves at work in the background goes on.

        A command that passes its deadline is killed, its shell only where nothing else helps.

        Args:
            timeout_s: None = `Limits.command_s`.

        Raises:
            WorkspaceGone: the workspace itself failed.
        """
        deadline = self._command_s if timeout_s is None else timeout_s
        request = {"op": "run", "service": self.number, "timeout_s": deadline}
        text = command.encode(errors="surrogateescape")
        reply, payload = await self._link.request(request, text, patience_s=deadline + PATIENCE_S)
        self.alive = reply["alive"]
        return result_of(reply, payload)

    async def close(self) -> None:
        """End it and all it started. Safe to call twice."""
        if self.alive:
            self.alive = False
            await Service(self._link, self.number).stop()


def error_of(state: Mapping[str, Any]) -> ErrorKind | None:
    """Why a service did not end by itself."""
    if state["timed_out"]:
        return "timed_out"
    return "signal" if (state["exit_code"] or 0) > 128 else None


def result_of(reply: Mapping[str, Any], payload: bytes) -> ExecResult:
    """What the runner says about a command."""
    raw = payload[: reply["cut"]], payload[reply["cut"] :]
    stdout, stderr = (stream.decode(errors="replace") for stream in raw)
    exact = (stdout.encode(), stderr.encode()) == raw
    return ExecResult(
        exit_code=reply["exit_code"],
        stdout=stdout,
        stderr=stderr,
        duration_s=reply["duration_s"],
        error=reply["why"],
        timed_out=reply["why"] == "timed_out",
        stdout_bytes=reply["bytes"][0],
        stderr_bytes=reply["bytes"][1],
        spill_path=reply["spill"],
        raw=None if exact else raw,
    )
