"""Trees as tar streams, out of the workspace and into it, and what is in them by digest.

Part of the runner; compiled when it is first asked for. It acts with the command user's rights, so
a service that races it gains nothing that it could not do itself.
"""

# Paths as the command user wrote them; and the runner starts faster without pathlib.
# ruff: noqa: PTH101, PTH103, PTH112, PTH115, PTH118, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from .runner_files import MAX_DEPTH, WORKDIR, WRITABLE, Refused, as_agent, opened_folder, split
from .runner_output import CHUNK, SPILL_DIR
from .runner_process import end_everyone
from .runner_reset import OWN, wipe

if TYPE_CHECKING:
    from .runner import Runner

SENT_BYTES = 1 << 20
DEEPEST = 4 * MAX_DEPTH
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)


class Outlet(io.RawIOBase):
    """A file that sends what is written to it, and refuses more than it may send."""

    def __init__(self, runner: Runner, max_bytes: int) -> None:
        self.runner, self.left = runner, max_bytes
        self.waiting = bytearray()

    def writable(self) -> bool:
        """Nothing else."""
        return True

    def write(self, data: Any) -> int:
        """Send it, in large pieces."""
        self.left -= len(data)
        if self.left < 0:
            raise Refused("the tree has more bytes than may leave")
        self.waiting += data
        if len(self.waiting) >= SENT_BYTES:
            self.send()
        return len(data)

    def send(self) -> None:
        """Send what waits."""
        self.runner.reply({"more": True}, bytes(self.waiting))
        self.waiting.clear()


class ArchiveCalls:
    """Answers for whole trees."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def on_pack(
        self, _: bytes, *, path: str | None, max_bytes: int
    ) -> tuple[dict[str, Any], bytes]:
        """Send a tar of all at or below a path, without links; None = all writable places."""
        outlet = Outlet(self.runner, max_bytes)
        with as_agent(), tarfile.open(fileobj=outlet, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            if path is None:
                for place in WRITABLE:
                    add_below(tar, place, place[1:], links=True)
            else:
                place, names = split(path)
                start = os.path.join(place, *names)
                with opened_folder(os.path.dirname(start) if names else place):
                    pass  # there is no link on the way
                add(tar, start, "." if os.path.isdir(start) else names[-1], links=False)
        outlet.send()
        return {}, b""

    def on_unpack(self, payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Make the writable places what a tar of all of them says; every process ends."""
        end_everyone()
        self.runner.forget_services()
        wipe()
        try:
            with as_agent(), tarfile.open(fileobj=io.BytesIO(payload), mode="r:") as tar:
                lay(tar)
        except tarfile.TarError as error:
            raise Refused(f"expected a snapshot, a tar: {error}") from error
        return {}, b""

    def on_list(self, _: bytes, *, paths: list[str]) -> tuple[dict[str, Any], bytes]:
        """Every entry at or below each path: [path, kind, mode, size, digest or target]."""
        found: dict[str, list[Any]] = {}
        with as_agent():
            for path in paths:
                below = "/".join(split(path, roots=(WORKDIR,))[1])
                start = os.path.join(WORKDIR, below)
                if os.path.lexists(start):
                    for entry, info in walk(start):
                        if entry != WORKDIR:
                            name = os.path.relpath(entry, WORKDIR)
                            found[name] = [name, *described(entry, info)]
        return {"entries": [found[name] for name in sorted(found)]}, b""


def walk(path: str, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    """A path and all below it, through no link, in order; what was locked is locked again."""
    if depth > DEEPEST:
        raise Refused(f"{path[:80]!r}... is more than {DEEPEST} folders deep")
    info = os.lstat(path)
    yield path, info
    if stat.S_ISDIR(info.st_mode):
        with unlocked(path, info, 0o500):
            names = sorted(os.listdir(path))
            for name in names:
                yield from walk(os.path.join(path, name), depth + 1)


@contextlib.contextmanager
def unlocked(path: str, info: os.stat_result, needed: int) -> Iterator[None]:
    """Readable for the length of the block, whatever its mode says."""
    mode = stat.S_IMODE(info.st_mode)
    if mode & needed == needed or info.st_uid != os.geteuid():
        yield
        return
    os.chmod(path, mode | needed)
    try:
        yield
    finally:
        os.chmod(path, mode)


def opened(path: str) -> IO[bytes]:
    """A regular file, open for reading."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags), "rb", buffering=0)


def described(path: str, info: os.stat_result) -> tuple[str, int, int, str]:
    """Kind, mode, size, and what it holds."""
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return "link", mode, 0, os.readlink(path)
    if stat.S_ISDIR(info.st_mode):
        return "folder", mode, 0, ""
    if not stat.S_ISREG(info.st_mode):
        return "other", mode, 0, ""
    digest = hashlib.sha256()
    with unlocked(path, info, 0o400), opened(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "file", mode, info.st_size, digest.hexdigest()


def add_below(tar: tarfile.TarFile, place: str, name: str, *, links: bool) -> None:
    """A place with everything in it but the runner's own files."""
    if place in OWN:
        folder = tar.gettarinfo(place, name)
        folder.pax_headers = {"mtime": stamped(os.lstat(place))}
        tar.addfile(folder)
    for entry in sorted(os.listdir(place)):
        path = os.path.join(place, entry)
        if path != SPILL_DIR:
            add(tar, path, os.path.join(name, entry), links=links)


def add(tar: tarfile.TarFile, start: str, name: str, *, links: bool) -> None:
    """One entry and all below it. A socket is left out, as it is nobody's any more."""
    for path, info in walk(start):
        if not links and not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            raise Refused(f"{path!r} is a link or a special file")
        if stat.S_ISSOCK(info.st_mode):
            continue
        below = os.path.relpath(path, start)
        member = tar.gettarinfo(path, os.path.normpath(os.path.join(name, below)))
        if not links and member.type in LINKS:  # two names of one file
            member.type, member.linkname, member.size = tarfile.REGTYPE, "", info.st_size
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.pax_headers = {"mtime": stamped(info)}
        if member.isreg():
            with unlocked(path, info, 0o400), opened(path) as file:
                tar.addfile(member, file)
        else:
            tar.addfile(member)


def lay(tar: tarfile.TarFile) -> None:
    """Make every member where it belongs, then give the folders their modes and times."""
    folders = []
    for member in tar:
        path = os.path.normpath("/" + member.name)
        if not any(path == place or path.startswith(place + "/") for place in WRITABLE):
            raise Refused(f"{member.name!r} is outside of {', '.join(WRITABLE)}")
        if member.isdir():
            os.makedirs(path, mode=0o700, exist_ok=True)
            folders.append((path, member))
            continue
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(os.path.normpath("/" + member.linkname), path)
        elif member.isfifo():
            os.mkfifo(path, member.mode)
        elif member.isreg():
            write(tar, member, path)
        with contextlib.suppress(OSError):
            os.utime(path, ns=times_of(member), follow_symlinks=False)
    for path, member in reversed(folders):
        os.utime(path, ns=times_of(member))
        os.chmod(path, member.mode & 0o7777)


def stamped(info: os.stat_result) -> str:
    """When something was written, as a tar's extended header says it."""
    whole, part = divmod(info.st_mtime_ns, 10**9)
    return f"{whole}.{part:09d}"


def times_of(member: tarfile.TarInfo) -> tuple[int, int]:
    """Its times, to the nanosecond, which `mtime` cannot hold."""
    whole, _, part = str(member.pax_headers.get("mtime", member.mtime)).partition(".")
    stamp = int(whole) * 10**9 + int(part[:9].ljust(9, "0"))
    return stamp, stamp


def write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """One regular file."""
    source = tar.extractfile(member)
    assert source is not None, "a regular file has content"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        while chunk := source.read(CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        os.fchmod(file.fileno(), member.mode & 0o7777)
