"""Starting and ending processes as process 1 of a workspace. Part of `runner.py`, sent with it."""

# File descriptors; and the runner starts faster without pathlib.
# ruff: noqa: PTH110, PTH118, PTH123, PTH208

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import sys
import termios
import time

from .runner_files import AGENT_ID

TYPE_CHECKING = False  # as in `runner.py`
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import NoReturn

SURVIVED_S = 10.0
OUT_OF_THE_WAY = 64
NULL = os.makedev(1, 3)
OOM_SCORE = "/proc/self/oom_score_adj"
OOM_COUNTS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")
"""Where the kernel counts what it killed here for want of memory: cgroups v1, v2."""
OUTRUN_S = 2.0
"""After so long, what forks faster than it is killed takes the services with it."""


class NotStarted(Exception):
    """A command that cannot be started, and why."""


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    descriptors: Mapping[int, int],
    rlimits: Sequence[tuple[int, int]],
    *,
    terminal: bool = False,
) -> int:
    """Start a command as the command user in a session of its own; returns its pid.

    Args:
        descriptors: its file descriptor -> ours.
        terminal: descriptor 0 becomes its controlling terminal.

    Raises:
        OSError: it cannot be started.
    """
    failed_r, failed_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            failed_w = _moved(failed_w)
            os.setsid()
            if os.getuid() != 0:
                set_dumpable(True)  # nobody hostile is alive in it; needed to write the next file
            with contextlib.suppress(OSError):  # when memory runs out, it goes and not the runner
                os.write(os.open(OOM_SCORE, os.O_WRONLY | os.O_CLOEXEC), b"1000")
            _take(descriptors, terminal=terminal)
            for which, value in rlimits:
                resource.setrlimit(which, (value, value))
            if os.getuid() == 0:
                os.setgid(AGENT_ID)
                os.setuid(AGENT_ID)
            os.umask(0o022)
            os.chdir(cwd)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            _execute(list(argv), env)
        except BaseException as error:  # whatever it was, the parent has to hear of it
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(failed_w, f"{number} {error}".encode(errors="replace")[:4000])
        finally:
            os._exit(127)
    os.close(failed_w)
    failure = os.read(failed_r, 4000).decode(errors="replace")
    os.close(failed_r)
    if failure:
        os.waitpid(pid, 0)
        code, _, text = failure.partition(" ")
        raise OSError(int(code), text.split("] ")[-1])
    return pid


def _execute(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """As `os.execvpe`, which imports a module first: a millisecond in every child."""
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for program in programs(argv[0], env):
        try:
            os.execve(program, argv, env)
        except OSError as error:
            failure = error
    raise failure


def programs(name: str, env: Mapping[str, str]) -> Iterator[str]:
    """The files that a name may stand for; the first that can be run is meant."""
    if "/" in name:
        yield name
        return
    for folder in env.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            yield path


def give(descriptors: Iterable[int]) -> None:
    """Let the command user open what a command gets, as /dev/stdout say."""
    for fd in set(descriptors):
        if os.fstat(fd).st_rdev != NULL:
            os.fchown(fd, AGENT_ID, AGENT_ID)


def _take(descriptors: Mapping[int, int], *, terminal: bool) -> None:
    """Make ours the new program's own. A failed program cannot say why on these any more."""
    if os.getuid() == 0:
        give(descriptors.values())
    for target, fd in [(target, _moved(fd)) for target, fd in descriptors.items()]:
        os.dup2(fd, target)
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _moved(fd: int) -> int:
    """A copy out of the way of the descriptors that are about to be given away."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)


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


def end_everyone(pid: int = 0) -> int:
    """Kill every process but this one and wait for them; the wait status of `pid`."""
    status = 0
    give_up = time.monotonic() + SURVIVED_S
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
    sys.exit(f"a process survived SIGKILL for {SURVIVED_S:g} s")


def end_others(pid: int, keepers: Iterable[int]) -> int:
    """As `end_everyone`, but spare what descends from a keeper, as long as that can be told."""
    spared, status = frozenset(keepers), 0
    give_up = time.monotonic() + OUTRUN_S
    while spared and time.monotonic() < give_up:
        tree = parents()
        fates = {one: _root_of(one, tree, spared) for one in tree}
        doomed = [one for one, root in fates.items() if one != 1 and root == 1]
        for one in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        ended = reap(pid)
        status = status if ended is None else ended
        if not doomed and None not in fates.values():
            return status
        time.sleep(0.0005)
    return end_everyone(pid) or status


def _root_of(pid: int, tree: Mapping[int, int], spared: frozenset[int]) -> int | None:
    """The keeper above a process, else 1; None when a parent ended while we looked."""
    here: int | None = pid
    for _ in range(len(tree) + 1):
        if here is None or here in spared:
            return here
        if here in (0, 1):
            return 1
        here = tree.get(here)
    return None


def parents() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def descendants(pid: int) -> set[int]:
    """Every process below one."""
    tree, found = parents(), {pid}
    while more := {one for one, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {pid}


def oom_kills() -> int:
    """How many processes were killed for want of memory; 0 where that cannot be read."""
    for path in OOM_COUNTS:
        with contextlib.suppress(OSError), open(path) as lines:
            counts = dict(line.split() for line in lines)
            return int(counts.get("oom_kill", 0))
    return 0


def exit_code_of(status: int) -> int:
    """A wait status as a shell reports it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def set_dumpable(flag: bool) -> None:
    """Whether processes of the same user may trace this one or open its descriptors."""
    prctl(4, int(flag))  # PR_SET_DUMPABLE


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def prctl(option: int, value: int) -> None:
    """The system call; a runner that cannot make it must not go on."""
    import ctypes  # only where it is needed: it costs 10 ms

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        sys.exit(f"prctl({option}) failed")


def leave_keys() -> None:
    """Give up what is in the kernel's keyring of the session that started us: no namespace does."""
    import ctypes  # it costs 10 ms

    number = {"x86_64": 250, "aarch64": 219, "riscv64": 219}.get(os.uname().machine)
    if number is None:
        sys.exit(f"no system call keyctl is known on {os.uname().machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    # Where there are no keys, or none may be asked for, there is nothing to leave.
    if libc.syscall(number, 1, None) < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        sys.exit("keyctl(KEYCTL_JOIN_SESSION_KEYRING) failed")
