"""How the runner makes its workspace new again, and describes it, so that the host can compare.

Part of `runner.py`; sent into the workspace with it. It runs while no command is alive, so nobody
races it. It keeps no secret of what it cannot undo: process ids go on counting.
"""

# Bare paths; and the runner starts faster without pathlib.
# ruff: noqa: PTH101, PTH103, PTH106, PTH108, PTH110, PTH112, PTH118, PTH123, PTH208

from __future__ import annotations

import array
import contextlib
import fcntl
import os

from .runner_files import WRITABLE, as_agent
from .runner_output import SPILL_DIR

MEMORY = ("/dev/shm", "/dev/mqueue")
OWN = ["/workspace", "/home/agent"]
"""Places whose folder itself belongs to the command user; `runner_places.py` may add to it."""
MOST_NAMED = 20
GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, what `lsattr` asks


def places() -> tuple[str, ...]:
    """Everywhere a command can leave something."""
    return (*WRITABLE, *MEMORY)


def wipe() -> None:
    """Empty every writable place and lay what the runner itself needs there.

    Raises:
        OSError: something cannot be removed.
    """
    for name in os.listdir(SPILL_DIR):
        os.unlink(f"{SPILL_DIR}/{name}")
    os.rmdir(SPILL_DIR)
    with as_agent():
        for place in places():
            if os.path.isdir(place):
                _empty(place)
                with contextlib.suppress(PermissionError):  # as in `_empty`
                    os.chmod(place, 0o1777)
        for place in OWN:
            os.chmod(place, 0o755)
            os.utime(place)  # a time of its owner's choice would be a message to the next one
    os.makedirs(SPILL_DIR)


def _empty(folder: str) -> None:
    with contextlib.suppress(PermissionError):  # a place that is root's, such as /tmp
        os.chmod(folder, 0o700)
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                _empty(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)


class Look:
    """Looks at the workspace; two looks are equal where nothing was left between them."""

    def __init__(self) -> None:
        self._tcp: tuple[list[str], dict[str, str]] = ([], {})
        """What TCP had done at the last walk through its tables, and what stood there."""

    def state(self) -> dict[str, str]:
        """What is there that a command may have left, each thing under its name."""
        found = {place: _place(place) for place in places()}
        found["devices"] = " ".join(map(_device, sorted(os.listdir("/dev"))))
        found["processes"] = " ".join(sorted(filter(str.isdigit, os.listdir("/proc"))))
        found |= _lengths("sysvipc/msg", "sysvipc/sem", "sysvipc/shm", *_SOCKETS)
        found |= self._connections()
        with open("/proc/self/mountinfo") as mounts:
            found["mounts"] = mounts.read()
        found["descriptors"] = str(len(os.listdir("/proc/self/fd")))
        return found

    def _connections(self) -> dict[str, str]:
        """TCP's tables. The kernel takes milliseconds for them, so only where TCP was used."""
        done = _tcp_done()
        if not done or done != self._tcp[0]:
            self._tcp = done, _tcp_tables(done)
        return self._tcp[1]


_SOCKETS = ("net/udp", "net/udp6", "net/unix")
"""As TCP's, whose closed connections hold their ports for a minute, these outlive processes."""


def _lengths(*tables: str) -> dict[str, str]:
    found = {}
    for table in tables:  # a header, then entries
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{table}") as lines:
            found[table] = f"{len(lines.readlines())} lines"
    return found


_TCP = ("net/tcp", "net/tcp6")


def _tcp_tables(done: list[str]) -> dict[str, str]:
    if set(done) == {"0"}:  # nothing ever happened here, so there are headers alone
        return {table: "1 lines" for table in _TCP if os.path.exists(f"/proc/{table}")}
    return _lengths(*_TCP)


def _tcp_done() -> list[str]:
    """All that TCP counts here, its sockets at work and those that wait to be forgotten too.

    Whatever makes or ends an entry of its tables changes one of these. Empty where the kernel does
    not tell. What is constant, or counted for the whole machine, is left out.
    """
    found = []
    try:
        with open("/proc/net/snmp") as lines:
            names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        found += values[names.index("MaxConn") + 1 :]
        with open("/proc/net/sockstat") as lines:
            words = next(line.split() for line in lines if line.startswith("TCP:"))
        found += [words[words.index(name) + 1] for name in ("inuse", "tw")]
        with contextlib.suppress(FileNotFoundError), open("/proc/net/sockstat6") as lines:
            found += [line.split()[2] for line in lines if line.startswith("TCP6:")]
    except (OSError, StopIteration, ValueError):
        return []
    return found


def _device(name: str) -> str:
    info = os.lstat(f"/dev/{name}")
    return f"{name} {info.st_mode:o} {info.st_uid} {info.st_gid} {info.st_rdev}"


def _place(place: str) -> str:
    try:
        info, room = os.lstat(place), os.statvfs(place)
    except FileNotFoundError:
        return "absent"
    names = sorted(
        os.path.join(folder, name)
        for folder, folders, files in os.walk(place)
        for name in (*folders, *files)
    )
    used = f"{room.f_blocks - room.f_bfree} blocks, {room.f_files - room.f_ffree} inodes"
    extra = {name: os.getxattr(place, name) for name in os.listxattr(place)}
    owner = f"{info.st_mode:o} {info.st_uid} {info.st_gid} {info.st_nlink} {extra} {_flags(place)}"
    return f"{owner}; {used}; {len(names)} {names[:MOST_NAMED]}"


def _flags(folder: str) -> str:
    """Its attributes as `lsattr` shows them, in hexadecimal; empty where there are none."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = array.array("L", [0])
        fcntl.ioctl(fd, GET_FLAGS, flags)
        return f"{flags[0] & 0xFFFFFFFF:x}"
    except OSError:
        return ""
    finally:
        os.close(fd)
