"""The small program inside a workspace: runs commands and moves files over one stream.

It is process 1 of the workspace, needs only the standard library (Python 3.9 or later), and
answers one request at a time. A frame is two big-endian lengths, a JSON header and a payload.
Each command is a closed unit: when it ends, everything it started is killed. So nobody races the
file operations, which also run with the command user's rights. When the host goes, the runner
ends, and with it the workspace. It knows no engine and sets no limits but time and output.
"""

# File descriptors; and it starts faster without pathlib.
# ruff: noqa: PTH103, PTH118

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time

from .runner_files import (
    WORKDIR,
    Refused,
    as_agent,
    collect,
    kind_of,
    open_folder,
    opened_folder,
    page,
    read,
    split,
    write,
)
from .runner_output import CHUNK, SPILL_DIR, Spill, Stream, Work, take
from .runner_process import (
    NotStarted,
    end_everyone,
    end_others,
    exit_code_of,
    input_of,
    leave_keys,
    oom_kills,
    reap,
    set_dumpable,
    spawn,
)
from .runner_reset import Look, wipe

TYPE_CHECKING = False  # checkers know it by its name; to import `typing` costs 2 ms at each start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

    from .runner_calls import ServiceCalls
    from .runner_swift import Swift

FRAME = struct.Struct(">II")
GROWN = 2
LAST_WORDS_S = 0.1  # for output of children that outlive the command itself


class Runner:
    """Answers requests until the host goes or the lifetime ends."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes], config: dict[str, Any]) -> None:
        self.requests, self.replies, self.config = requests, replies, config
        self.commands, self.oom_kills = 0, oom_kills()
        self.services: ServiceCalls | None = None
        self.swift: Swift | None = None
        self.look = Look()
        self.wake, wake_end = os.pipe()
        for fd in (self.wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Answer until the host is gone."""
        self.reply({"state": self.look.state()})
        while True:
            header, payload = self.receive()
            name = header.pop("op")
            operation = self.operation("on_" + name)
            try:
                self.reply(*operation(payload, **header))
            except (Refused, OSError, ValueError) as error:  # ValueError: a null byte
                if name in ("exec", "run"):
                    raise  # what a command may fail with is a result; this is ours
                self.reply({"error": kind_of(error), "message": str(error)})
            self._grow_swift()

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next request: header and payload."""
        header_size, payload_size = FRAME.unpack(self._read(FRAME.size))
        return json.loads(self._read(header_size)), self._read(payload_size)

    def _read(self, n: int) -> bytes:
        data = self.requests.read(n)
        if len(data) < n:
            os._exit(0)  # the host is gone
        return data

    def reply(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame."""
        data = json.dumps(header).encode()
        self.replies.write(FRAME.pack(len(data), len(payload)) + data)
        self.replies.write(payload)
        self.replies.flush()

    def operation(self, name: str) -> Callable[..., tuple[dict[str, Any], bytes]]:
        """What answers a request. What few workspaces need is loaded when it is asked for."""
        if name in ("on_pack", "on_unpack", "on_list"):
            from .runner_archive import ArchiveCalls

            return getattr(ArchiveCalls(self), name)  # type: ignore[no-any-return]
        if not hasattr(self, name) and self.services is None:
            from .runner_calls import ServiceCalls

            self.services = ServiceCalls(self)
        found = self if hasattr(self, name) else self.services
        return getattr(found, name)  # type: ignore[no-any-return]

    def forget_services(self) -> None:
        """All of them are dead already."""
        if self.services:
            self.services.forget()
        self.services = None

    def keepers(self) -> list[int]:
        """The processes whose descendants outlive a command."""
        return self.services.keepers() if self.services else []

    def on_ping(self, _: bytes) -> tuple[dict[str, Any], bytes]:
        """Show that the runner lives."""
        return {}, b""

    def on_renew(self, _: bytes) -> tuple[dict[str, Any], bytes]:
        """Undo all that was done here; what is there now is for the host to compare."""
        end_everyone()
        self.forget_services()
        wipe()
        self.commands = 0
        limit_lifetime(self.config["lifetime_s"])
        return {"state": self.look.state()}, b""

    def on_exec(
        self, stdin: bytes, *, argv: list[str], env: dict[str, str], cwd: str, timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """Run one command; its kept output is the payload (`cut` says where stderr starts)."""
        work = self.work()
        place = os.path.join(WORKDIR, cwd)
        (out_fd, out_w), (err_fd, err_w) = os.pipe(), os.pipe()
        streams = {out_fd: work.out, err_fd: work.err}
        try:
            started = self._start(argv, env, place, stdin, (out_w, err_w))
            status, timed_out = self._watch(started, streams, work.spill, work.started + timeout_s)
        except NotStarted as error:
            work.err.add(f"cannot start {argv[0]!r}: {error}\n".encode())
            return work.outcome(-1, why="not_started")
        finally:
            for fd in streams:
                os.close(fd)
        why = "timed_out" if timed_out else self._why(status)
        return work.outcome(exit_code_of(status), why=why)

    def _start(
        self, argv: list[str], env: dict[str, str], cwd: str, stdin: bytes, outputs: tuple[int, int]
    ) -> Callable[[], int]:
        """Start a command and close its descriptors here; returns what tells its pid.

        Raises:
            NotStarted: it cannot be started; the function that is returned may raise it too.
        """
        ours = list(outputs)
        try:
            ours.insert(0, input_of(stdin))
            if self.swift and not self.services:  # nobody else is alive
                return self.swift.start(argv, env, cwd, ours)
            pid = spawn(argv, env, cwd, dict(enumerate(ours)), self.config["rlimits"])
            return lambda: pid
        except OSError as error:
            raise NotStarted(error.strerror) from error
        finally:
            for fd in ours:
                os.close(fd)

    def _grow_swift(self) -> None:
        """From its third command on a workspace starts them in a way that takes time to load."""
        if self.commands == GROWN and self.swift is None and os.getuid() == 0:
            with contextlib.suppress(OSError, ImportError):
                from .runner_swift import Swift

                self.swift = Swift(self.config["rlimits"])

    def work(self) -> Work:
        """The books of the next command."""
        self.commands += 1
        return Work(self.commands, self.config)

    def _why(self, status: int) -> str | None:
        """Why a command ended, where it did not end itself."""
        before, self.oom_kills = self.oom_kills, oom_kills()
        if status and self.oom_kills > before:
            return "out_of_memory"
        return "signal" if os.WIFSIGNALED(status) else None

    def _watch(
        self, started: Callable[[], int], streams: dict[int, Stream], spill: Spill, deadline: float
    ) -> tuple[int, bool]:
        """Read until the command has ended or its time is up; then nobody is left alive."""
        poll, open_fds = select.poll(), set(streams)
        for fd in (*open_fds, self.wake):
            poll.register(fd, select.POLLIN)
        poll.register(self.requests.fileno(), 0)  # reports only that the host hung up
        status: int | None = None
        until = deadline
        while open_fds or status is None:
            for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000):
                if fd == self.requests.fileno():
                    os._exit(0)
                elif fd == self.wake:
                    os.read(fd, CHUNK)
                elif not take(fd, streams[fd], spill):
                    poll.unregister(fd)
                    open_fds.discard(fd)
            ended = reap(started())
            if ended is not None:
                status = ended
                until = min(deadline, time.monotonic() + LAST_WORDS_S)
            if time.monotonic() >= until:
                break
        timed_out = status is None
        killed = end_others(started(), self.keepers())
        for fd in open_fds:
            while take(fd, streams[fd], spill):
                pass
        return killed if status is None else status, timed_out

    def on_put(
        self, payload: bytes, *, files: list[tuple[str, int, int]], folders: list[str]
    ) -> tuple[dict[str, Any], bytes]:
        """Write files given as (path, mode, size), their contents joined in the payload."""
        with as_agent():
            for path in folders:
                os.close(open_folder(path, make=True))
            offset = 0
            for path, mode, size in files:
                write(path, payload[offset : offset + size], mode)
                offset += size
        return {}, b""

    def on_get(self, _: bytes, *, path: str, max_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Read one regular file."""
        parent, name = os.path.split(path)
        with as_agent(), opened_folder(parent) as folder:
            return {}, read(folder, name, path, max_bytes)

    def on_page(
        self, _: bytes, *, path: str, offset: int, max_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """Read a part of one regular file."""
        parent, name = os.path.split(path)
        with as_agent(), opened_folder(parent) as folder:
            data, size = page(folder, name, path, offset, max_bytes)
        return {"size": size}, data

    def on_get_tree(
        self, _: bytes, *, paths: list[str], max_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """Read regular files at or below `paths`; their contents are the payload."""
        found: dict[str, bytes] = {}
        with as_agent():
            for path in paths:
                clean = "/".join(split(path, roots=(WORKDIR,))[1])
                with contextlib.suppress(FileNotFoundError):
                    collect(clean, found, max_bytes)
        names = sorted(found)
        sizes = [[name, len(found[name])] for name in names]
        return {"files": sizes}, b"".join(found[name] for name in names)


def limit_lifetime(seconds: float) -> None:
    """End the workspace after this long; no signal sent by a command ends it before."""
    end = time.monotonic() + seconds

    def on_alarm(*_: object) -> None:
        if time.monotonic() >= end:
            os._exit(124)

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which process 1 does not feel
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds + 0.001, 1.0)


def main() -> None:
    """Take over the standard streams and serve."""
    if os.getpid() != 1:
        sys.exit("the runner must be process 1 of its own pid namespace: it kills all others")
    config = json.loads(sys.argv[1])
    ends = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    limit_lifetime(config["lifetime_s"])
    for number in (signal.SIGHUP, signal.SIGQUIT):  # a host under `nohup` passes them on as ignored
        signal.signal(number, signal.SIG_DFL)
    if os.getuid() == 0:
        os.setgroups([])
    else:
        set_dumpable(False)
        leave_keys()
    os.makedirs(SPILL_DIR, exist_ok=True)
    if config["places"]:
        from .runner_places import fill

        fill(config["places"])
    requests, replies = ends
    if config["network"]:
        from .runner_net import carried

        requests, replies = carried(*ends)
    Runner(os.fdopen(requests, "rb"), os.fdopen(replies, "wb"), config).serve()
