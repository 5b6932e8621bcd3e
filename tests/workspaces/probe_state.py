"""What a command can see of its workspace, as JSON. Runs inside one; times are left out."""

# Bare paths, as system calls see them.
# ruff: noqa: PTH109, PTH118, PTH208

import ctypes
import fcntl
import json
import os
import resource
import socket
import stat
import time
from pathlib import Path

WRITABLE = ("/workspace", "/tmp", "/home/agent", "/dev/shm", "/dev/mqueue")


def entry(path: str) -> dict[str, object]:
    info = os.lstat(path)
    seen: dict[str, object] = {
        "mode": oct(info.st_mode), "owner": [info.st_uid, info.st_gid], "links": info.st_nlink,
        "xattrs": sorted(os.listxattr(path, follow_symlinks=False)),
        "future": max(info.st_atime, info.st_mtime) > time.time() + 60,
    }  # fmt: skip
    if stat.S_ISREG(info.st_mode):
        seen["content"] = Path(path).read_bytes().decode(errors="replace")
    if stat.S_ISDIR(info.st_mode) and os.access(path, os.R_OK):
        fd = os.open(path, os.O_RDONLY)
        try:
            seen["flags"] = list(fcntl.ioctl(fd, 0x80086601, bytes(8)))
        except OSError as error:
            seen["flags"] = str(error)
        os.close(fd)
    return seen


def tree(root: str) -> dict[str, object]:
    found: dict[str, object] = {root: entry(root)}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[ascii(path)] = entry(path)
    return found


def room(root: str) -> list[int]:
    info = os.statvfs(root)
    return [info.f_blocks, info.f_bfree, info.f_files, info.f_ffree]


def binds(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def lines(path: str) -> int:
    return len(Path(path).read_text().splitlines())


own = str(os.getpid())
print(json.dumps({
    "files": {root: tree(root) for root in WRITABLE},
    "room": {root: room(root) for root in WRITABLE},
    "devices": {name: entry(f"/dev/{name}") for name in os.listdir("/dev")
                if name not in ("shm", "mqueue")},
    "processes": [name for name in os.listdir("/proc") if name.isdigit() and name != own],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0),
    "groups": [os.getuid(), os.getgid(), os.getgroups()],
    "limits": [resource.getrlimit(number) for number in range(16)],
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:3],
    "mounts": lines("/proc/self/mountinfo"),
    "sockets": [lines(f"/proc/net/{kind}") for kind in ("tcp", "tcp6", "udp", "udp6", "unix")],
    "ipc": [lines(f"/proc/sysvipc/{kind}") for kind in ("msg", "sem", "shm")],
    "ports": [port for port in range(8000, 8010) if not binds(port)],
    "shared": ctypes.CDLL(None).shmget(77, 0, 0),
    "works": os.system("true > /dev/null; exec true"),
}))  # fmt: skip
