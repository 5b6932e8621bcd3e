"""The contracts of a workspace and of what opens one. `conformance.py` is their executable form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from .errors import NetworkRefused
from .sessions import Service, Shell, Terminal
from .types import KIB, Entry, ExecResult, Page, Snapshot, WorkspaceSpec


class Workspace(Protocol):
    """One isolated place where an agent's commands run, one command at a time."""

    spec: WorkspaceSpec

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecResult:
        """Run a command as the unprivileged command user and wait for it.

        When it ends, or its time does, everything it started is killed; services are not.

        Args:
            timeout_s: deadline, enforced inside the workspace; None = `Limits.command_s`.
            env: added to the spec's environment.
            cwd: absolute, or relative to `WORKDIR`; None = `WORKDIR`.

        Raises:
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write one file, owned by the command user; missing parents are made.

        Raises:
            FileRefused: the path leaves the writable places or goes through a link.
            DiskFull: the workspace has no room for it.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        """Read one regular file.

        Raises:
            FileNotFoundError: nothing is there.
            FileRefused: not a regular file, reached through a link, or over `max_bytes`.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def page(self, path: str, *, offset: int = 0, max_bytes: int = 64 * KIB) -> Page:
        """Read a part of one regular file, a spill file or a log say; past its end, nothing.

        Raises: as `get`.
        """
        ...

    async def put_tree(self, tar: bytes, path: str = ".", *, max_bytes: int | None = None) -> None:
        """Unpack a tar (gzipped or not) of regular files and folders below `path`.

        Args:
            max_bytes: of the tar when it is unzipped; None = `Limits.workspace_bytes`.

        Raises: as `put`; `FileRefused` also for links, devices, members out of the tree, and a
            tar that is too big; then nothing was written.
        """
        ...

    async def get_tree(self, paths: Sequence[str], *, max_bytes: int) -> dict[str, bytes]:
        """Read every regular file at or below each path; a path that does not exist adds nothing.

        Returns: path relative to `WORKDIR` -> content, sorted by path.

        Raises: as `get`; `FileRefused` when anything below is a link or a special file, or the
            sum passes `max_bytes`.
        """
        ...

    async def get_tar(self, path: str = ".", *, max_bytes: int) -> bytes:
        """A plain tar of the file at `path` or of all below that folder, with modes and times.

        Raises: as `get_tree`.
        """
        ...

    async def list_tree(self, paths: Sequence[str] = (".",)) -> dict[str, Entry]:
        """What stands at and below each path, links and special files too; none is followed.

        Returns: path relative to `WORKDIR` -> entry, sorted by path.

        Raises:
            FileRefused: a path outside of `WORKDIR`, or folders too deep.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def snapshot(self, *, max_bytes: int | None = None) -> Snapshot:
        """All that the writable places hold, to go back to it or to go on from it elsewhere.

        Args:
            max_bytes: None = what the writable places can hold.

        Raises:
            FileRefused: they hold more than `max_bytes`; holes count as what they stand for.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def restore(self, snapshot: Snapshot) -> None:
        """End every process and make the writable places what a snapshot says.

        Raises:
            ValueError: it was taken of another image.
            DiskFull: there is less room here.
            FileRefused: it is damaged. Then, and on `DiskFull`, a part of it is there.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        lifetime_s: float | None = None,
    ) -> Service:
        """Start a program with a lifetime of its own, a server say; its output is a log.

        It lives until it ends itself, is stopped, is killed by a command, or the workspace closes;
        what it started is killed with it. At most 16 run at once.

        Args:
            lifetime_s: None = as long as the workspace.

        Raises:
            NotStarted: no such program, no such folder.
            FileRefused: too many run.
            WorkspaceGone: the workspace itself failed.
        """
        ...

    async def terminal(
        self,
        argv: Sequence[str] = ("bash",),
        *,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        lifetime_s: float | None = None,
    ) -> Terminal:
        """As `start`, at a terminal: keys are pressed, and its screen is read."""
        ...

    async def shell(self, *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Shell:
        """A bash that keeps its folder, variables and jobs from one command to the next.

        Raises: as `start`.
        """
        ...

    async def close(self) -> None:
        """End every process and remove the workspace. Safe to call twice; never raises."""
        ...


class Provider(Protocol):
    """Opens workspaces of one kind."""

    name: str
    isolation_gaps: tuple[str, ...]
    """What this provider isolates less well than Docker, one sentence each; empty = nothing."""

    networks: bool
    """Whether a workspace of it can be held to `WorkspaceSpec.network`, whatever runs in there."""

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        """Make images ready, building what is missing; returns logical name -> content digest.

        Raises:
            UnknownImage: a name that nothing defines.
            ImageError: a build failed; the message ends with the tail of its log.
            DiskFull: there is no room to build one.
            EngineUnavailable: no engine answers.
        """
        ...

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """Announce openings that come soon, so that they may be prepared. Changes no result."""
        ...

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> Workspace:
        """Open a workspace with the seed laid.

        Args:
            fresh: one that nobody used before and nobody will afterwards, as verdicts need it;
                else it may be one that was used, emptied and compared with a new one.

        Raises: as `prepare`; `FileRefused` or `DiskFull` when the seed cannot be laid;
            `NetworkRefused` when it names hosts and this provider cannot hold it to them.
        """
        ...

    async def close(self) -> None:
        """Close every workspace still open. Safe to call twice."""
        ...


@asynccontextmanager
async def opened(
    provider: Provider, spec: WorkspaceSpec, *, fresh: bool = False
) -> AsyncIterator[Workspace]:
    """A workspace for the length of a `with` block; see `Provider.open`."""
    if spec.network and not provider.networks:
        raise NetworkRefused(provider.name, spec.network)
    workspace = await provider.open(spec, fresh=fresh)
    try:
        yield workspace
    finally:
        await workspace.close()


@asynccontextmanager
async def forked(
    provider: Provider, workspace: Workspace, *, fresh: bool = False
) -> AsyncIterator[Workspace]:
    """A second workspace that begins where another stands, for the length of a `with` block.

    The other one goes on as it was; its processes and services have no twin.

    Raises: as `Workspace.snapshot`, `Provider.open` and `Workspace.restore`.
    """
    snapshot = await workspace.snapshot()
    async with opened(provider, workspace.spec, fresh=fresh) as fork:
        await fork.restore(snapshot)
        yield fork
