"""Starting a command without a copy of the runner. Part of `runner.py`, sent with it.

To fork the runner costs more than a short command does, for its memory is copied page by page;
`posix_spawn` copies nothing, but starts programs with the ids of its caller. The kernel keeps ids
by thread. So a thread of the runner takes the command user's, starts the command, and is root's
again. The saved ids stay root's throughout; the new program loses them.

What a command could do to that thread, in the moment between its own start and the thread's end,
is little: process 1 and its threads get no signal that they do not ask for, they cannot be traced,
and a thread that was slowed down has only to end. It serves only where the runner is root, and
while nobody is alive to whom the thread would be lent for longer.
"""

# The runner starts faster without pathlib.
# ruff: noqa: PTH123

from __future__ import annotations

import _thread
import contextlib
import ctypes
import errno
import os
import resource
import signal

from .runner_files import AGENT_ID
from .runner_process import OOM_SCORE, NotStarted, give, programs

TYPE_CHECKING = False  # as in `runner.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SET_IDS = {"x86_64": (117, 119), "aarch64": (147, 149), "riscv64": (147, 149)}
"""The system calls setresuid and setresgid. The C library's functions change every thread."""
ROOM = 64
"""With fewer open files than this, which bind the runner too, there is no room for its own."""


class Swift:
    """Starts commands one after the other, while nobody else is alive."""

    def __init__(self, rlimits: Sequence[tuple[int, int]]) -> None:
        """Raises: OSError: not on this machine, or not within these limits."""
        numbers = SET_IDS.get(os.uname().machine)
        if numbers is None or dict(rlimits).get(resource.RLIMIT_NOFILE, ROOM) < ROOM:
            raise OSError(errno.ENOSYS, "no swift start here")
        with _first_to_go():
            pass  # it can be undone
        self._set_uid, self._set_gid = numbers
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._done = _thread.allocate_lock()
        self._result: int | Exception = 0
        for which, value in rlimits:  # what a program inherits without a fork is its starter's
            resource.setrlimit(which, (value, value))
        os.umask(0o022)

    def start(
        self, argv: list[str], env: Mapping[str, str], cwd: str, descriptors: list[int]
    ) -> Callable[[], int]:
        """Begin to start a command, see `spawn`.

        Returns what waits until it has started, for its pid, or raises `NotStarted`.

        Args:
            descriptors: ours for its standard input, output and error output; this list is
                emptied, and they are closed once the command has them.

        Raises:
            OSError: there is no room for another thread.
        """
        give(descriptors)
        self._done.acquire()
        try:
            _thread.start_new_thread(self._work, (argv, env, cwd, tuple(descriptors)))
        except RuntimeError as error:
            self._done.release()
            raise OSError(errno.EAGAIN, str(error)) from error
        descriptors.clear()
        return self._started

    def _started(self) -> int:
        with self._done:
            result = self._result
        if isinstance(result, int):
            return result
        raise NotStarted(getattr(result, "strerror", None) or str(result))

    def _work(
        self, argv: list[str], env: Mapping[str, str], cwd: str, descriptors: Sequence[int]
    ) -> None:
        try:
            with _first_to_go(), self._lent(), _inside(cwd):
                self._result = _spawn(argv, env, descriptors)
        except Exception as error:  # whatever it was, the runner has to hear of it
            self._result = error
        finally:
            for fd in descriptors:
                os.close(fd)
            self._done.release()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        """Make this thread the command user's, but for the saved ids."""
        self._set(AGENT_ID)
        try:
            yield
        finally:
            self._set(0)

    def _set(self, number: int) -> None:
        calls = (self._set_gid, self._set_uid)  # root's user is what may change the group
        for call in calls if number else reversed(calls):
            if self._libc.syscall(call, number, number, 0):
                os._exit(125)  # a thread that is neither the one nor the other


@contextlib.contextmanager
def _first_to_go() -> Iterator[None]:
    """What is forked meanwhile is the first to go when memory runs out, and not the runner."""
    with open(OOM_SCORE, "r+b", buffering=0) as file:
        own = file.read()
        file.write(b"1000")
        try:
            yield
        finally:
            file.write(own)


@contextlib.contextmanager
def _inside(cwd: str) -> Iterator[None]:
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir("/")


def _spawn(argv: list[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
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
