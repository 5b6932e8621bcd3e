"""Running one command in a shell that stays. Part of the runner, sent into the workspace with it.

The shell reads its commands from a pipe and says on another one that a command has ended, so
nothing that a command prints is taken for its end.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import time

from .runner_output import CHUNK, Spill, Stream, take
from .runner_process import descendants
from .runner_services import CONTROL, Service

SHELL = ["bash", "--noprofile", "--norc"]
STUBBORN_S = 1.0
"""How long a shell may take to come back once all that it ran is killed."""


class Turn:
    """One command in one shell."""

    def __init__(self, shell: Service, streams: tuple[Stream, Stream], spill: Spill) -> None:
        assert shell.pipes is not None, "only shells take turns"
        self.shell, self.spill = shell, spill
        self.out, self.err, self.control = shell.pipes
        self.streams = dict(zip((self.out, self.err), streams, strict=True))
        self.answer = b""
        self.over = False
        self.before = descendants(shell.pid)
        """The shell, and what earlier commands left at work in it."""

    def run(self, command: str, deadline: float, host: int) -> tuple[int, bool, bool]:
        """The exit code, whether the time ran out, and whether the shell is still there.

        Args:
            host: the descriptor that hangs up when the host goes.
        """
        line = f"eval {shlex.quote(command)} < /dev/null {CONTROL}>&-\necho $? >&{CONTROL}\n"
        if self._feed(line.encode(), deadline):
            self._watch(deadline, host)
        timed_out = not self.over
        give_up = time.monotonic() + STUBBORN_S
        while not self.over and time.monotonic() < give_up:
            for one in descendants(self.shell.pid) - self.before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            self._watch(time.monotonic() + 0.02, host)
        self._drain()
        code = self.answer.strip()
        if code.isdigit():
            return int(code), timed_out, True
        ended = self.shell.finish()
        self._drain()
        return ended["exit_code"], timed_out, False

    def _feed(self, data: bytes, deadline: float) -> bool:
        """Hand the command over; False when the shell takes none."""
        poll = select.poll()
        poll.register(self.shell.feed, select.POLLOUT)
        try:
            while data and (left := deadline - time.monotonic()) > 0:
                poll.poll(left * 1000)
                data = data[self.shell.send(data) :]
        except BrokenPipeError:
            self.over = True
        return not self.over

    def _watch(self, until: float, host: int) -> None:
        """Read until the command is over or the time is."""
        poll = select.poll()
        for fd in (*self.streams, self.control):
            poll.register(fd, select.POLLIN)
        poll.register(host, 0)
        while not self.over and (left := until - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd == host:
                    os._exit(0)
                elif fd == self.control:
                    said = os.read(fd, CHUNK)
                    self.answer += said
                    self.over = not said or b"\n" in said
                elif not take(fd, self.streams[fd], self.spill):
                    poll.unregister(fd)

    def _drain(self) -> None:
        """What was written before the end and is still in the pipes."""
        for fd, stream in self.streams.items():
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while poll.poll(0) and take(fd, stream, self.spill):
                pass
