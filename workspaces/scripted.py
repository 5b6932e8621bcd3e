"""A workspace that replays results over files in memory: for tests and dry runs. Starts nothing."""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import FileRefused, NetworkRefused, WorkspaceGone
from .sessions import Link, Service, Shell, Terminal
from .trees import members_of, pack_tree, unpack_tree
from .types import KIB, WORKDIR, Entry, ExecResult, Page, Snapshot, WorkspaceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What `exec` was asked to run."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    timeout_s: float | None = None


class ScriptedWorkspace(Link):
    """Answers each `exec` with the next scripted result, or raises it when it is an exception."""

    def __init__(self, spec: WorkspaceSpec, results: Sequence[ExecResult | Exception]) -> None:
        self.spec = spec
        self.results = list(results)
        self.calls: list[Call] = []
        self.files: dict[str, bytes] = {_clean(p): c for p, c in unpack_tree(spec.seed).items()}
        self.closed = False
        self.sent: list[tuple[int, bytes]] = []
        """What services were sent: the number of the service, and the bytes."""
        self._services: list[bytes | None] = []

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecResult:
        """See `Workspace.exec`; records the call and replays."""
        self._check_open()
        self.calls.append(
            Call(argv=tuple(argv), stdin=stdin, env=dict(env or {}), cwd=cwd, timeout_s=timeout_s)
        )
        assert self.results, f"no scripted result is left for {list(argv)!r}"
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def get_tar(self, path: str = ".", *, max_bytes: int) -> bytes:
        """See `Workspace.get_tar`; times and modes are made up."""
        root = _clean(path)
        found = await self.get_tree([path], max_bytes=max_bytes)
        below = {posixpath.relpath(name, root): data for name, data in found.items()}
        single = {posixpath.basename(root): data for data in below.values()}
        return gzip.decompress(pack_tree(single if "." in below else below))

    async def list_tree(self, paths: Sequence[str] = (".",)) -> dict[str, Entry]:
        """See `Workspace.list_tree`; folders are not kept."""
        return {
            name: Entry(
                kind="file", mode=0o644, size=len(data), content=hashlib.sha256(data).hexdigest()
            )
            for name, data in (await self.get_tree(paths, max_bytes=sys.maxsize)).items()
        }

    async def snapshot(self, *, max_bytes: int | None = None) -> Snapshot:
        """See `Workspace.snapshot`."""
        self._check_open()
        return Snapshot(image=self.spec.image, data=pack_tree(self.files))

    async def restore(self, snapshot: Snapshot) -> None:
        """See `Workspace.restore`."""
        self._check_open()
        self.files = unpack_tree(snapshot.data)

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        lifetime_s: float | None = None,
    ) -> Service:
        """See `Workspace.start`; its log is the output of the next scripted result."""
        return Service(self, await self._started(argv, env=env, cwd=cwd))

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
        """See `Workspace.terminal`; its screen shows the output of the next scripted result."""
        number = await self._started(argv, env=env, cwd=cwd)
        return Terminal(self, number, rows=rows, columns=columns)

    async def shell(self, *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Shell:
        """See `Workspace.shell`; each command it runs is answered as an `exec` of that text."""
        self._check_open()
        self._services.append(b"")
        return Shell(self, len(self._services), command_s=self.spec.limits.command_s)

    async def _started(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: str | None
    ) -> int:
        self._services.append((await self.exec(argv, env=env, cwd=cwd)).streams[0])
        return len(self._services)

    async def request(
        self, header: Mapping[str, Any], payload: bytes = b"", *, patience_s: float = 300.0
    ) -> tuple[dict[str, Any], bytes]:
        """What services ask of a runner; they run until they are stopped."""
        self._check_open()
        number = header["service"]
        log = self._services[number - 1]
        if header["op"] == "run":
            result = await self.exec([payload.decode()], timeout_s=header["timeout_s"])
            return {**_reply_of(result), "alive": True}, b"".join(result.streams)
        if log is None:
            raise FileRefused(f"there is no service {number}; it was stopped")
        if header["op"] == "stop":
            self._services[number - 1] = None
        elif header["op"] == "send":
            self.sent.append((number, payload))
        offset = min(header.get("offset", 0), len(log))
        data = log[offset : offset + header.get("max_bytes", 0)]
        state = {"running": True, "exit_code": None, "timed_out": False}
        return {
            **state, "start": offset, "end": len(log), "sent": len(payload), "closed": False
        }, data  # fmt: skip

    async def page(self, path: str, *, offset: int = 0, max_bytes: int = 64 * KIB) -> Page:
        """See `Workspace.page`."""
        data = await self.get(path, max_bytes=sys.maxsize)
        return Page(data=data[offset : offset + max_bytes], size=len(data))

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See `Workspace.put`; `mode` is not kept."""
        self._check_open()
        self.files[_clean(path)] = data

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        """See `Workspace.get`."""
        self._check_open()
        if _clean(path) not in self.files:
            raise FileNotFoundError(path)
        data = self.files[_clean(path)]
        if len(data) > max_bytes:
            raise FileRefused(f"{path!r} has {len(data)} bytes; at most {max_bytes} may leave")
        return data

    async def put_tree(self, tar: bytes, path: str = ".", *, max_bytes: int | None = None) -> None:
        """See `Workspace.put_tree`; empty folders are not kept."""
        self._check_open()
        room = self.spec.limits.workspace_bytes if max_bytes is None else max_bytes
        files, _, payload = members_of(tar, path, max_bytes=room)
        for name, _, size in files:
            self.files[_clean(name)], payload = payload[:size], payload[size:]

    async def get_tree(self, paths: Sequence[str], *, max_bytes: int) -> dict[str, bytes]:
        """See `Workspace.get_tree`."""
        self._check_open()
        roots = [_clean(path) for path in paths]
        found = {
            name: data
            for name, data in sorted(self.files.items())
            if not name.startswith("/")
            and any(root in (".", name) or name.startswith(root + "/") for root in roots)
        }
        if sum(map(len, found.values())) > max_bytes:
            raise FileRefused(f"more than {max_bytes} bytes below {', '.join(paths)}")
        return found

    async def close(self) -> None:
        """See `Workspace.close`."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise WorkspaceGone("the workspace is closed")


def _reply_of(result: ExecResult) -> dict[str, Any]:
    """A result as a runner would state it."""
    return {
        "exit_code": result.exit_code, "duration_s": result.duration_s, "why": result.error,
        "bytes": (result.stdout_bytes, result.stderr_bytes), "spill": result.spill_path,
        "cut": len(result.streams[0]),
    }  # fmt: skip


class ScriptedProvider:
    """Opens a `ScriptedWorkspace` on each of its scripts in turn."""

    name = "scripted"
    networks = False
    isolation_gaps: tuple[str, ...] = ()

    def __init__(self, scripts: Sequence[Sequence[ExecResult | Exception]] = ()) -> None:
        """Args:
        scripts: results of the first workspace, of the second, ...; later ones have none.
        """
        self._scripts = [list(script) for script in scripts]
        self.opened: list[ScriptedWorkspace] = []

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`; every name is known."""
        return {name: f"scripted:{name}" for name in images}

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """See `Provider.expect`; there is nothing to prepare."""

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> ScriptedWorkspace:
        """See `Provider.open`; every one is fresh."""
        if spec.network:
            raise NetworkRefused(self.name, spec.network)
        number = len(self.opened)
        script = self._scripts[number] if number < len(self._scripts) else []
        self.opened.append(ScriptedWorkspace(spec, script))
        return self.opened[-1]

    async def close(self) -> None:
        """See `Provider.close`."""
        for workspace in self.opened:
            await workspace.close()


def _clean(path: str) -> str:
    """A path relative to `WORKDIR`, or absolute when it lies elsewhere."""
    full = posixpath.normpath(posixpath.join(WORKDIR, path))
    if ".." in path.split("/"):
        raise FileRefused(f"{path!r} must not contain '..'")
    return posixpath.relpath(full, WORKDIR) if (full + "/").startswith(WORKDIR + "/") else full
