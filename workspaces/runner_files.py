"""The runner's file operations: by descriptor, through no link, with the command user's rights.

Part of `runner.py`, kept apart for the reader; sent into the workspace with it.
"""

# Descriptors relative to folders, which pathlib does not know.
# ruff: noqa: PTH118, PTH123, PTH208

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

TYPE_CHECKING = False  # as in `runner.py`
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKDIR = "/workspace"
WRITABLE = [WORKDIR, "/tmp", "/home/agent"]
"""At the start a workspace may add to it, see `runner_places.py`."""
AGENT_ID = 1000
MAX_DEPTH = 64
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """A file operation that is not allowed."""


@contextlib.contextmanager
def as_agent() -> Iterator[None]:
    """Act with the command user's rights; nothing to do where the runner is that user."""
    if os.getuid() != 0:
        yield
        return
    os.setegid(AGENT_ID)
    os.seteuid(AGENT_ID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def split(path: str, roots: Sequence[str] = WRITABLE) -> tuple[str, list[str]]:
    """A path as (writable place, names below it)."""
    full = os.path.join(WORKDIR, path)
    for root in roots:
        if full == root or full.startswith(root + "/"):
            names = [name for name in full[len(root) :].split("/") if name not in ("", ".")]
            if ".." in names or "\0" in full:
                raise Refused(f"{path!r} must not contain '..' or a null byte")
            return root, names
    raise Refused(f"{path!r} is outside of {', '.join(roots)}")


def open_folder(path: str, *, make: bool = False) -> int:
    """A descriptor of a folder that is reached through no link."""
    root, names = split(path)
    fd = os.open(root, FOLDER)
    for name in names:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
            below = os.open(name, FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


@contextlib.contextmanager
def opened_folder(path: str, *, make: bool = False) -> Iterator[int]:
    """As `open_folder`, closed at the end of the block."""
    fd = open_folder(path, make=make)
    try:
        yield fd
    finally:
        os.close(fd)


def write(path: str, data: bytes, mode: int) -> None:
    """Write one regular file whole or not at all."""
    parent, name = os.path.split(path)
    if name in ("", ".", ".."):
        raise Refused(f"{path!r} names no file")
    with opened_folder(parent, make=True) as folder:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise Refused(f"{path!r} exists and is no regular file")
        draft = f".draft-{time.monotonic_ns()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(draft, flags, 0o600, dir_fd=folder)
        try:
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fchmod(fd, mode & 0o777)
            os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(draft, dir_fd=folder)
            raise


def read(folder: int, name: str, path: str, max_bytes: int) -> bytes:
    """The content of one regular file."""
    if name in ("", ".", ".."):
        raise Refused(f"{path!r} names no file")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "rb", buffering=0) as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise Refused(f"{path!r} is no regular file")
        if info.st_size > max_bytes:
            raise Refused(f"{path!r} has {info.st_size} bytes; at most {max_bytes} may leave")
        data = b""
        while chunk := file.read(max_bytes + 1 - len(data)):  # a service may still write to it
            data += chunk
            if len(data) > max_bytes:
                raise Refused(f"{path!r} grew past {max_bytes} bytes while it was read")
        return data


def page(folder: int, name: str, path: str, offset: int, max_bytes: int) -> tuple[bytes, int]:
    """A part of one regular file, and the size of the whole."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "rb", buffering=0) as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise Refused(f"{path!r} is no regular file")
        file.seek(offset)
        return file.read(max_bytes) or b"", info.st_size


def collect(path: str, found: dict[str, bytes], max_bytes: int) -> None:
    """Add every regular file at or below `path` (relative to `WORKDIR`) to `found`."""
    if path.count("/") > MAX_DEPTH:
        raise Refused(f"{path[:80]!r}... is more than {MAX_DEPTH} folders deep")
    parent, name = os.path.split(path)
    with opened_folder(parent) as folder:
        mode = os.stat(name or ".", dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            if not path.isprintable():
                raise Refused(f"{path!r} is not a printable UTF-8 name")
            room = max_bytes - sum(map(len, found.values()))
            found[path] = read(folder, name, path, room)
            return
    with opened_folder(path) as folder:
        names = os.listdir(folder)
    for name in names:
        collect(f"{path}/{name}" if path else name, found, max_bytes)


def kind_of(error: Exception) -> str:
    """The name under which the host raises an error again."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    full = (errno.ENOSPC, errno.EDQUOT)
    return "full" if isinstance(error, OSError) and error.errno in full else "refused"
