"""The small program inside a workspace: runs commands and moves files over one stream.

It is process 1 of the workspace, needs only the standard library (Python 3.9 or later), and
answers one request at a time. A frame is two big-endian lengths, a JSON header and a payload.
Each command is a closed unit: when it ends, everything it started is killed. So nobody races the
file operations, which also run with the command user's rights. When the host goes, the runner
ends, and with it the workspace. It knows no engine and sets no limits but time and output.
"""

# File descriptors; and it starts faster without pathlib.
# ruff: noqa: PTH103, PTH118, PTH123

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import IO, Any

from .runner_files import (
    AGENT_ID,
    WORKDIR,
    Refused,
    as_agent,
    collect,
    kind_of,
    open_folder,
    opened_folder,
    read,
    split,
    write,
)
from .runner_net import carried
from .runner_output import CHUNK, SPILL_DIR, Spill, Stream, take
from .runner_reset import state, wipe

FRAME = struct.Struct(">II")
LAST_WORDS_S = 0.1  # for output of children that outlive the command itself


class Runner:
    """Answers requests until the host goes or the lifetime ends."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes], config: dict[str, Any]) -> None:
        self.requests, self.replies, self.config = requests, replies, config
        self.commands = 0
        self.wake, wake_end = os.pipe()
        for fd in (self.wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Answer until the host is gone."""
        self.reply({"state": state()})
        while True:
            header, payload = self.receive()
            name = header.pop("op")
            operation = getattr(self, "on_" + name)
            try:
                self.reply(*operation(payload, **header))
            except (Refused, OSError, ValueError) as error:  # ValueError: a null byte
                if name == "exec":
                    raise  # what a command may fail with is a result; this is ours
                self.reply({"error": kind_of(error), "message": str(error)})

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

    def on_ping(self, _: bytes) -> tuple[dict[str, Any], bytes]:
        """Show that the runner lives."""
        return {}, b""

    def on_renew(self, _: bytes) -> tuple[dict[str, Any], bytes]:
        """Undo all that was done here; what is there now is for the host to compare."""
        end_everyone(0)
        wipe()
        self.commands = 0
        limit_lifetime(self.config["lifetime_s"])
        return {"state": state()}, b""

    def on_exec(
        self, stdin: bytes, *, argv: list[str], env: dict[str, str], cwd: str, timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """Run one command; its kept output is the payload (`cut` says where stderr starts)."""
        started = time.monotonic()
        cap = self.config["output_bytes"]
        out, err = Stream(cap), Stream(cap)
        self.commands += 1
        spill = Spill(self.commands, self.config["spill_bytes"])
        try:
            pid, out_fd, err_fd = start(
                argv, env, os.path.join(WORKDIR, cwd), stdin, self.config["rlimits"]
            )
        except OSError as error:
            text = f"cannot start {argv[0]!r}: {error.strerror}\n".encode()
            return self._outcome(-1, started, spill, Stream(cap), Stream(cap, text))
        streams = {out_fd: out, err_fd: err}
        exit_code, timed_out = self._watch(pid, streams, spill, started + timeout_s)
        for fd in (out_fd, err_fd):
            os.close(fd)
        spill.close()
        return self._outcome(exit_code, started, spill, out, err, timed_out=timed_out)

    def _outcome(
        self,
        exit_code: int,
        started: float,
        spill: Spill,
        out: Stream,
        err: Stream,
        *,
        timed_out: bool = False,
    ) -> tuple[dict[str, Any], bytes]:
        kept = out.kept(spill.path)
        header = {
            "exit_code": exit_code,
            "duration_s": time.monotonic() - started,
            "timed_out": timed_out,
            "bytes": [out.total, err.total],
            "cut": len(kept),
            "spill": spill.path if out.cut or err.cut else None,
        }
        return header, kept + err.kept(spill.path)

    def _watch(
        self, pid: int, streams: dict[int, Stream], spill: Spill, deadline: float
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
            ended = reap(pid)
            if ended is not None:
                status = ended
                until = min(deadline, time.monotonic() + LAST_WORDS_S)
            if time.monotonic() >= until:
                break
        timed_out = status is None
        killed = end_everyone(pid)
        for fd in open_fds:
            while take(fd, streams[fd], spill):
                pass
        return exit_code_of(killed if status is None else status), timed_out

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


def start(
    argv: list[str], env: dict[str, str], cwd: str, stdin: bytes, rlimits: list[tuple[int, int]]
) -> tuple[int, int, int]:
    """Start a command as the command user; returns its pid and the read ends of its output.

    Raises:
        OSError: it cannot be started.
    """
    (out_r, out_w), (err_r, err_w), (failed_r, failed_w) = os.pipe(), os.pipe(), os.pipe()
    source = input_of(stdin)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.getuid() != 0:
                set_dumpable(True)  # nobody else is alive; needed to write the next file
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
                score.write("1000")  # when memory runs out, the command goes and not the runner
            own = (out_w, err_w, *((source,) if stdin else ()))  # never /dev/null
            for fd in own if os.getuid() == 0 else ():
                os.fchown(fd, AGENT_ID, AGENT_ID)  # so that /dev/stdout can be opened
            for target, fd in enumerate((source, out_w, err_w)):
                os.dup2(fd, target)
            for which, value in rlimits:
                resource.setrlimit(which, (value, value))
            if os.getuid() == 0:
                os.setgid(AGENT_ID)
                os.setuid(AGENT_ID)
            os.umask(0o022)
            os.chdir(cwd)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            os.execvpe(argv[0], argv, env)
        except BaseException as error:  # whatever it was, the parent has to hear of it
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(failed_w, f"{number} {error}".encode(errors="replace")[:4000])
        finally:
            os._exit(127)
    for fd in (out_w, err_w, failed_w, source):
        os.close(fd)
    with open(failed_r, "rb") as pipe:
        failure = pipe.read().decode(errors="replace")
    if failure:
        os.close(out_r)
        os.close(err_r)
        os.waitpid(pid, 0)
        code, _, text = failure.partition(" ")
        raise OSError(int(code), text.split("] ")[-1])
    return pid, out_r, err_r


def input_of(data: bytes) -> int:
    """A file descriptor to read `data` from."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY)
    fd = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def reap(pid: int) -> int | None:
    """Bury the dead; the wait status of `pid` if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            dead, raw = os.waitpid(-1, os.WNOHANG)
            if dead == 0:
                break
            if dead == pid:
                status = raw
    return status


def end_everyone(pid: int) -> int:
    """Kill every process but this one and wait for them; the wait status of `pid`."""
    status = 0
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            while True:
                dead, raw = os.waitpid(-1, os.WNOHANG)
                if dead == 0:
                    break
                status = raw if dead == pid else status
        except ChildProcessError:
            return status
        time.sleep(0.0005)
    sys.exit("a process survived SIGKILL for 10 s")


def exit_code_of(status: int) -> int:
    """A wait status as a shell reports it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def set_dumpable(flag: bool) -> None:
    """Whether processes of the same user may trace this one or open its descriptors."""
    import ctypes  # only where commands share our user: it costs 10 ms

    if ctypes.CDLL(None, use_errno=True).prctl(4, int(flag), 0, 0, 0):  # PR_SET_DUMPABLE
        sys.exit("prctl(PR_SET_DUMPABLE) failed")


def leave_keys() -> None:
    """Give up what is in the kernel's keyring of the session that started us: no namespace does."""
    import ctypes  # as above

    number = {"x86_64": 250, "aarch64": 219, "riscv64": 219}.get(os.uname().machine)
    if number is None:
        sys.exit(f"no system call keyctl is known on {os.uname().machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    # Where there are no keys, or none may be asked for, there is nothing to leave.
    if libc.syscall(number, 1, None) < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        sys.exit("keyctl(KEYCTL_JOIN_SESSION_KEYRING) failed")


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
    if os.getuid() == 0:
        os.setgroups([])
    else:
        set_dumpable(False)
        leave_keys()
    os.makedirs(SPILL_DIR, exist_ok=True)
    requests, replies = carried(*ends) if config["network"] else ends
    Runner(os.fdopen(requests, "rb"), os.fdopen(replies, "wb"), config).serve()
