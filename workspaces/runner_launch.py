"""The launcher: a process that starts one command after the other. Part of `runner.py`.

To fork the runner costs more than a short command does, for its memory is copied page by page. A
launcher is forked once and takes on all that its commands inherit; they start without a copy. It
serves only where the runner is root, so that commands cannot reach it, and only while nobody is
alive but runner, launcher and command: who is left behind is killed, and the launcher with him.
"""

# File descriptors; and the runner starts faster without pathlib.
# ruff: noqa: PTH123

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import marshal
import os
import resource
import signal
import struct

from .runner_files import AGENT_ID
from .runner_process import close_others, first_to_go, give, programs

TYPE_CHECKING = False  # as in `runner.py`
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

SIZE = struct.Struct("=I")
STANDARD = 3
"""Descriptors of a command: input, output, error output."""


class Launcher:
    """The runner's side of it."""

    def __init__(self, rlimits: Iterable[tuple[int, int]]) -> None:
        self.link, theirs = _socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                with contextlib.suppress(EOFError):
                    _serve(theirs, rlimits)
            finally:
                os._exit(0)
        theirs.close()

    def start(
        self, argv: list[str], env: Mapping[str, str], cwd: str, descriptors: Sequence[int]
    ) -> int:
        """Start a command; returns its pid, 0 where the launcher died over it.

        Raises:
            EOFError: the launcher can start nothing any more; the command was not started.
            OSError: the command cannot be started.
        """
        try:
            _send(self.link, [argv, env, cwd], descriptors)
        except OSError as error:
            raise EOFError from error
        try:
            said = _receive(self.link)[0]
        except EOFError:
            return 0
        if said is None:
            raise EOFError
        if isinstance(said, int):
            return said
        raise OSError(*said)

    def status(self) -> int | None:
        """The wait status of the command that was started last; None = the launcher is gone."""
        try:
            return int(_receive(self.link)[0])
        except EOFError:
            return None

    def alone(self) -> bool:
        """Whether nobody else is alive but the runner, once a command has ended and was buried.

        Whoever lives descends from a child of one of these two, which only they bury.
        """
        try:
            return _children(1) == [str(self.pid)] and not _children(self.pid)
        except OSError:  # a kernel without such lists
            return False

    def end(self) -> None:
        """Hang up: it ends by itself, unless it waits for a command; then it is killed with it."""
        self.link.close()


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as names:
        return names.read().split()


def _send(link: _socket.socket, what: Any, descriptors: Sequence[int] = ()) -> None:
    data = marshal.dumps(what)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))]
    link.sendmsg([SIZE.pack(len(data))], rights if descriptors else [])
    link.sendall(data)


def _receive(link: _socket.socket) -> tuple[Any, list[int]]:
    """What the other end said, and the descriptors that came with it."""
    room = _socket.CMSG_SPACE(STANDARD * array.array("i").itemsize)
    head, ancillary, _, _ = link.recvmsg(SIZE.size, room, _socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for _, _, rights in ancillary:
        descriptors.frombytes(rights)
    data = bytearray()
    while len(head) == SIZE.size and len(data) < SIZE.unpack(head)[0]:
        chunk = link.recv(SIZE.unpack(head)[0] - len(data))
        if not chunk:
            break
        data += chunk
    if not data:
        raise EOFError
    return marshal.loads(data), list(descriptors)


def _serve(link: _socket.socket, rlimits: Iterable[tuple[int, int]]) -> None:
    """Start commands until the runner is gone. Runs in the launcher."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    close_others({0, 1, 2, link.fileno()})
    first_to_go()
    for which, value in rlimits:
        resource.setrlimit(which, (value, value))
    os.umask(0o022)
    own = _schedule()
    while True:
        (argv, env, cwd), descriptors = _receive(link)
        if _schedule() != own:  # a command changed it in the moment in which both were one user
            _send(link, None)
            return
        try:
            pid = _launch(argv, env, cwd, descriptors)
        except OSError as error:
            _send(link, [error.errno or errno.EINVAL, str(error).split("] ")[-1]])
            continue
        finally:
            for fd in descriptors:
                os.close(fd)
        _send(link, pid)
        _send(link, os.waitpid(pid, 0)[1])


def _schedule() -> tuple[object, ...]:
    return os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)


def _launch(argv: list[str], env: Mapping[str, str], cwd: str, descriptors: Sequence[int]) -> int:
    """Start a command as the command user; the saved ids, which it loses, lead back."""
    if len(descriptors) < STANDARD:  # no room for them within `open_files`
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    give(descriptors)
    os.setresgid(AGENT_ID, AGENT_ID, 0)
    os.setresuid(AGENT_ID, AGENT_ID, 0)
    try:
        os.chdir(cwd)
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(descriptors)]
        failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        for program in programs(argv[0], env):
            try:
                return os.posix_spawn(
                    program, argv, env, file_actions=actions, setsid=True,
                    setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
                )  # fmt: skip
            except OSError as error:
                failure = error
        raise failure
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.chdir("/")
