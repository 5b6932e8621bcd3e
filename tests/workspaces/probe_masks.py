"""Every way to a secret of the host that a command can try, as JSON. Runs inside a workspace."""

# Bare paths, as system calls see them.
# ruff: noqa: PTH118, PTH119, PTH123

import contextlib
import ctypes
import json
import os
import socket
import sys

MARK, PORT, KEY, *PATHS = sys.stdin.read().split("\n")  # argv would be found in /proc
SOCKETS = [path for path in PATHS if path.endswith(".sock")]
KEYCTL, KEYCTL_READ = 250, 11
found: list[str] = []


def look(name: str, data: bytes) -> None:
    if MARK.encode() in data:
        found.append(name)


for path in PATHS:
    for way in (path, f"/proc/1/root{path}", f"/proc/self/root{path}", f"/workspace/../..{path}"):
        with contextlib.suppress(OSError), open(way, "rb") as file:
            look(way, file.read())
for path in SOCKETS:
    for address in (path, "\0" + os.path.basename(path), f"/proc/1/root{path}"):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            with contextlib.suppress(OSError):
                link.connect(address)
                look(f"socket {address}", link.recv(100))
with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(PORT)), 5) as link:
    look("loopback", link.recv(100))
for folder, folders, files in os.walk("/", followlinks=False):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("usr", "sys")]
    for name in files:
        path = os.path.join(folder, name)
        if MARK in name:
            found.append(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            look(path, b"" if path.startswith("/dev/") else os.read(fd, 1 << 16))
        os.close(fd)
for number in range(3, 64):
    with contextlib.suppress(OSError):
        look(f"descriptor {number}", os.pread(number, 1000, 0))
libc = ctypes.CDLL(None, use_errno=True)
data = ctypes.create_string_buffer(200)
for key in (int(KEY), -3, -4, -5):  # its number; the session's, user's and user session's ring
    if libc.syscall(KEYCTL, KEYCTL_READ, key, data, 200) > 0:
        look(f"key {key}", data.raw)
look("environment", repr(dict(os.environ)).encode())
print(json.dumps(sorted(set(found))))
