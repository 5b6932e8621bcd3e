"""Processes with a lifetime of their own: servers, terminals and shells. Part of the runner.

Each has a keeper, a process of the runner's that adopts all its orphans, reads its output, and
ends it. So the runner can tell what belongs to a service, whoever started it, from what a command
left behind. A keeper that is killed takes the protection of its service with it.
"""

# File descriptors; and the runner starts faster without pathlib.
# ruff: noqa: PTH108, PTH118, PTH123, PTH208

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .runner_files import WORKDIR, Refused
from .runner_output import CHUNK, SPILL_DIR
from .runner_process import adopt_orphans, descendants, exit_code_of, reap, spawn

MOST = 16
LOG_ROOM = 1 << 20
FEED_MS = 50


class Log:
    """The last bytes of a service's output, in two files that take turns.

    Each is named by the offset at which it starts.
    """

    def __init__(self, number: int, room: int) -> None:
        self.prefix, self.room = f"service-{number}.", room
        self.file_start, self.end, self.fd = 0, 0, -1

    def add(self, chunk: bytes) -> None:
        """Append; the older half goes when there is no room."""
        with contextlib.suppress(OSError):  # /tmp is full: the log has a gap
            if self.fd < 0 or self.end - self.file_start >= self.room // 2:
                self._turn()
            os.write(self.fd, chunk)
        self.end += len(chunk)

    def _turn(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        for name in files_of(self.prefix)[:-1]:
            os.unlink(f"{SPILL_DIR}/{name}")
        self.file_start = self.end
        path = f"{SPILL_DIR}/{self.prefix}{self.end:015d}.log"
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)


def files_of(prefix: str) -> list[str]:
    """The files of a log, the older first."""
    return sorted(name for name in os.listdir(SPILL_DIR) if name.startswith(prefix))


def _opened(prefix: str) -> list[tuple[int, int]]:
    """Where each file of a log starts, and its descriptor; none that has just gone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        names, found = files_of(prefix), []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.append((int(name.split(".")[1]), os.open(f"{SPILL_DIR}/{name}", flags)))
        if found or not names:
            return found


def read_log(number: int, offset: int, max_bytes: int) -> tuple[int, bytes, int]:
    """What a log holds from an offset on: where that starts, the bytes, and the log's end."""
    start, found, end = offset, b"", 0
    for base, fd in _opened(f"service-{number}."):
        with open(fd, "rb", buffering=0) as file:
            end = base + os.fstat(fd).st_size
            if not found:
                start = max(start, base)
            file.seek(max(start + len(found) - base, 0))
            found += file.read(max(max_bytes - len(found), 0)) or b""
    return min(start, end), found, end


class Service:
    """The runner's side of one service."""

    def __init__(self, pid: int, number: int, status: int, feed: int) -> None:
        self.pid, self.number, self.status, self.feed = pid, number, status, feed
        self.said = bytearray()
        self.pipes: tuple[int, int, int] | None = None
        """Output, error output and control, where it is a shell."""
        os.set_blocking(status, False)
        os.set_blocking(feed, False)

    def state(self) -> dict[str, Any]:
        """Whether it runs, and how it ended."""
        with contextlib.suppress(BlockingIOError):
            while self.status >= 0:
                chunk = os.read(self.status, CHUNK)
                self.said += chunk
                if not chunk:
                    os.close(self.status)
                    self.status = -1
        if self.status >= 0:
            return {"running": True, "exit_code": None, "timed_out": False}
        lines = self.said.splitlines()
        killed = {"exit_code": 137, "timed_out": False}
        return {"running": False, **(json.loads(lines[-1]) if lines else killed)}

    def send(self, data: bytes) -> int:
        """Write what it takes within a moment to its input."""
        poll = select.poll()
        poll.register(self.feed, select.POLLOUT)
        poll.poll(FEED_MS if data else 0)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += os.write(self.feed, data[sent : sent + CHUNK])
        return sent

    def close_input(self) -> None:
        """No more input comes."""
        if self.feed >= 0:
            os.close(self.feed)
            self.feed = -1

    def finish(self, grace_s: float = 1.0) -> dict[str, Any]:
        """How it ended: by itself within a moment, or with all that descends from it, killed."""
        give_up = time.monotonic() + grace_s
        while (state := self.state())["running"] and time.monotonic() < give_up:
            time.sleep(0.002)
        if state["running"]:
            end_tree(self.pid, with_root=True)
            state = self.state()
        return state

    def forget(self) -> None:
        """Close all that is open for it."""
        self.close_input()
        for fd in (self.status, *(self.pipes or ())):
            if fd >= 0:
                os.close(fd)
        self.status, self.pipes = -1, None


class Services:
    """Every service of a workspace, by number."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.all: dict[int, Service] = {}
        self.made = 0

    def keepers(self) -> list[int]:
        """The processes whose descendants a command's end must spare."""
        return [one.pid for one in self.all.values() if one.state()["running"]]

    def find(self, number: int) -> Service:
        """One of them."""
        if number not in self.all:
            raise Refused(f"there is no service {number}; it was stopped, or never started")
        return self.all[number]

    def forget(self) -> None:
        """All of them are dead already."""
        for service in self.all.values():
            service.forget()
        self.all.clear()
        self.made = 0

    def start(
        self, argv: list[str], env: dict[str, str], cwd: str,
        *, lifetime_s: float, size: list[int] | None, shell: bool,
    ) -> Service:  # fmt: skip
        """Start one.

        Args:
            size: rows and columns of its terminal; None = it has none.
            shell: it also gets a control pipe, and its output is left to the runner.

        Raises:
            OSError: it cannot be started.
        """
        if len(self.keepers()) >= MOST:
            raise Refused(f"at most {MOST} services may run; stop one first")
        self.made += 1
        status_r, status_w = os.pipe()
        ours, theirs = terminal_ends(*size) if size else pipe_ends(shell)
        keeper = Keeper(self.made, self.config, lifetime_s, status_w)
        pid = os.fork()
        if pid == 0:
            try:
                drained = -1 if shell else ours["out"]
                keeper.keep(argv, env, os.path.join(WORKDIR, cwd), theirs, drained, bool(size))
            finally:
                os._exit(1)
        for fd in {status_w, *theirs.values()}:
            os.close(fd)
        first = b""
        while not first.endswith(b"\n") and (chunk := os.read(status_r, CHUNK)):
            first += chunk
        line, _, rest = first.partition(b"\n")
        service = Service(pid, self.made, status_r, ours["in"])
        service.said += rest
        if shell:
            service.pipes = (ours["out"], ours["err"], ours["control"])
        elif ours["out"] != ours["in"]:
            os.close(ours["out"])
        said = json.loads(line or b'{"errno": 0}')
        if "errno" in said:
            service.forget()
            raise OSError(said["errno"], said.get("why", "its keeper died"))
        self.all[self.made] = service
        return service


def pipe_ends(shell: bool) -> tuple[dict[str, int], dict[int, int]]:
    """Our ends by purpose, and what the service gets as which descriptor."""
    (in_r, in_w), (out_r, out_w) = os.pipe(), os.pipe()
    ours, theirs = {"in": in_w, "out": out_r}, {0: in_r, 1: out_w, 2: out_w}
    if shell:
        (ours["err"], theirs[2]), (ours["control"], theirs[CONTROL]) = os.pipe(), os.pipe()
    return ours, theirs


CONTROL = 19
"""The descriptor on which a shell says that a command has ended."""


def terminal_ends(rows: int, columns: int) -> tuple[dict[str, int], dict[int, int]]:
    """As `pipe_ends`, for a terminal of this size."""
    master, slave = os.openpty()
    resize(master, rows, columns)
    return {"in": master, "out": master}, {0: slave, 1: slave, 2: slave}


def resize(master: int, rows: int, columns: int) -> None:
    """Set a terminal's size."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Keeper:
    """The process that stands above one service: it drains its output and ends it in time."""

    def __init__(
        self, number: int, config: Mapping[str, Any], lifetime_s: float, status: int
    ) -> None:
        self.config, self.status = config, status
        self.deadline = time.monotonic() + lifetime_s
        self.log = Log(number, min(LOG_ROOM, config["spill_bytes"]))

    def keep(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, theirs: Mapping[int, int],
        drained: int, terminal: bool,
    ) -> None:  # fmt: skip
        """Start it and stay until it has ended. Runs in the keeper, which then ends."""
        close_others({0, 1, 2, self.status, drained, *theirs.values()})
        os.setsid()
        adopt_orphans()
        wake, wake_w = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        try:
            pid = spawn(argv, env, cwd, theirs, self.config["rlimits"], terminal=terminal)
        except OSError as error:
            self._say({"errno": error.errno or errno.EINVAL, "why": error.strerror})
            return
        self._say({})
        for fd in set(theirs.values()):
            os.close(fd)
        raw = self._watch(pid, drained, wake)
        end_tree(os.getpid(), with_root=False)
        self._drain(drained)
        code = 137 if raw is None else exit_code_of(raw)
        self._say({"exit_code": code, "timed_out": raw is None})

    def _watch(self, pid: int, drained: int, wake: int) -> int | None:
        """The wait status of the service; None when its time is over."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if drained >= 0:
            poll.register(drained, select.POLLIN)
        while (left := self.deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd == wake:
                    os.read(wake, CHUNK)
                elif not self._take(drained):
                    poll.unregister(drained)
            ended = reap(pid)
            if ended is not None:
                return ended
        return None

    def _take(self, drained: int) -> bool:
        try:
            chunk = os.read(drained, CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # a terminal that nobody holds any more
            return False
        self.log.add(chunk)
        return bool(chunk)

    def _drain(self, drained: int) -> None:
        poll = select.poll()
        if drained >= 0:
            poll.register(drained, select.POLLIN)
            while poll.poll(0) and self._take(drained):
                pass

    def _say(self, fact: Mapping[str, Any]) -> None:
        os.write(self.status, json.dumps(fact).encode() + b"\n")


def close_others(kept: set[int]) -> None:
    """Close every descriptor but these: the link to the host above all."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def end_tree(pid: int, *, with_root: bool) -> None:
    """Kill what descends from a process until nothing does, then the process itself."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        below = descendants(pid)
        for one in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        if not with_root:
            reap(0)
        if not below - ({pid} if with_root else set()):
            break
        time.sleep(0.001)
    if with_root:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
