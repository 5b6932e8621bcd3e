"""What a workspace is made from, and what a command in it gives back. Names no engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

WORKDIR = "/workspace"
"""Where the agent's files lie in every workspace; relative paths are relative to it."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}(?::|$))(?:{_LABEL}\.)*(?!\d+(?::|$)|0x){_LABEL}(?::\d{{1,5}})?")
"""A host name and perhaps a port; never an address, whose last part is a number."""

FOLDER = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.+@-]+)+")
RESERVED = (WORKDIR, "/tmp", "/home/agent", "/dev", "/proc", "/sys", "/etc")
"""What a workspace lays out itself."""

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one workspace may use. Every limit is on by default."""

    memory_bytes: int = 1536 * MIB
    """Resident memory of all processes plus all writable files; there is no swap."""
    cpus: float = 1.0
    pids: int = 256
    workspace_bytes: int = 256 * MIB
    """Size of the writable file system at `WORKDIR`."""
    tmp_bytes: int = 128 * MIB
    """Size of the writable file systems at /tmp and at the home directory, each."""
    inodes: int = 64 * KIB
    """Files and folders in each of these three and in /dev/shm."""
    open_files: int = 1024
    """File descriptors of each process."""
    output_bytes: int = 64 * KIB
    """Kept of each output stream of one command (head + tail); the rest goes to a spill file."""
    command_s: float = 60.0
    """Deadline of a command that names none."""
    lifetime_s: float = 3600.0
    """The workspace ends itself after this long, whatever runs in it."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}; there is no 'no limit'")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkspaceSpec:
    """How to open a workspace. Two opens of one spec give the same start."""

    image: str
    """Logical image name, resolved by `images.py`; not an engine's tag."""
    seed: bytes = field(default=b"", repr=False)
    """A gzipped tar laid at `WORKDIR`, owned by the command user; empty = an empty folder."""
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    network: tuple[str, ...] = ()
    """Hosts that commands may reach over TLS, as `name` (port 443) or `name:port`; empty = none.
    Such a workspace is never used again, and verdicts are made without it."""
    writable: tuple[str, ...] = ()
    """Folders of the image that commands may change besides the usual places: copies of them, each
    up to `Limits.workspace_bytes`. Such a workspace is never used again."""

    def __post_init__(self) -> None:
        for number, place in enumerate(self.writable):
            others = (*RESERVED, *self.writable[:number])
            if not FOLDER.fullmatch(place) or any(_overlap(place, other) for other in others):
                raise ValueError(
                    f"writable must list folders such as '/opt/app', apart from each other and "
                    f"from {', '.join(RESERVED)}; got {place!r}"
                )
        for host in self.network:
            if not HOST.fullmatch(host):
                raise ValueError(
                    f"network must list lower-case host names such as 'pypi.org' or "
                    f"'pypi.org:8443', got {host!r}; addresses and patterns cannot be allowed"
                )


def _overlap(one: str, other: str) -> bool:
    """Whether two folders are one, or one holds the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


ErrorKind = Literal["not_started", "timed_out", "out_of_memory", "signal"]
"""Why a command did not end by itself. Where the kernel does not say that it killed for want of
memory, that is a `signal`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecResult:
    """What one command did. A non-zero exit code is a result, not an error."""

    exit_code: int
    """The command's own; 128 + n when signal n ended it, -1 when it never started."""
    stdout: str
    stderr: str
    duration_s: float
    error: ErrorKind | None = None
    """None = it ended by itself, well or not."""
    timed_out: bool = False
    """True when the deadline passed: every child process is dead, the output so far is kept."""
    stdout_bytes: int = 0
    """How much the command wrote, kept or not."""
    stderr_bytes: int = 0
    spill_path: str | None = None
    """A file in the workspace holding the whole of what was cut; None = nothing was cut."""
    raw: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """What is kept of both streams, byte for byte, where a stream is not UTF-8; None = both are."""

    @property
    def truncated(self) -> bool:
        """True when a stream passed `Limits.output_bytes` and lost its middle."""
        return self.spill_path is not None

    @property
    def streams(self) -> tuple[bytes, bytes]:
        """What is kept of standard output and standard error, byte for byte."""
        return self.raw or (self.stdout.encode(), self.stderr.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A part of a file."""

    data: bytes = field(repr=False)
    size: int
    """Of the whole file, when it was read."""


EntryKind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What stands under one name."""

    kind: EntryKind
    mode: int
    """Permission bits."""
    size: int
    """In bytes; 0 for all but files."""
    content: str
    """The SHA-256 of a file in hexadecimal, the target of a link; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All that the writable places of a workspace held: content, modes, times, links.

    No process is in it, no service, nothing of /dev/shm.
    """

    image: str
    data: bytes = field(repr=False)
