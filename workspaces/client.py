"""The operations of a workspace that has a runner, as requests. Knows no stream and no pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .sessions import PATIENCE_S, Link, Service, Shell, Terminal, result_of
from .trees import members_of
from .types import KIB, Entry, ExecResult, Page, Snapshot, WorkspaceSpec


class RunnerClient(Link):
    """See `Workspace`; `request` reaches the runner."""

    spec: WorkspaceSpec

    @property
    def env(self) -> Mapping[str, str]:
        """What every process gets, besides what its call adds."""
        raise NotImplementedError

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecResult:
        """See `Workspace.exec`. All it started is dead when it returns, but for services."""
        deadline = self.spec.limits.command_s if timeout_s is None else timeout_s
        request = {**self._place("exec", argv, env, cwd), "timeout_s": deadline}
        reply, payload = await self.request(request, stdin, patience_s=deadline + PATIENCE_S)
        return result_of(reply, payload)

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See `Workspace.put`."""
        await self.request({"op": "put", "files": [(path, mode, len(data))], "folders": []}, data)

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        """See `Workspace.get`."""
        return (await self.request({"op": "get", "path": path, "max_bytes": max_bytes}))[1]

    async def page(self, path: str, *, offset: int = 0, max_bytes: int = 64 * KIB) -> Page:
        """See `Workspace.page`."""
        request = {"op": "page", "path": path, "offset": offset, "max_bytes": max_bytes}
        reply, data = await self.request(request)
        return Page(data=data, size=reply["size"])

    async def put_tree(self, tar: bytes, path: str = ".", *, max_bytes: int | None = None) -> None:
        """See `Workspace.put_tree`."""
        room = self.spec.limits.workspace_bytes if max_bytes is None else max_bytes
        files, folders, payload = members_of(tar, path, max_bytes=room)
        await self.request({"op": "put", "files": files, "folders": folders}, payload)

    async def get_tree(self, paths: Sequence[str], *, max_bytes: int) -> dict[str, bytes]:
        """See `Workspace.get_tree`."""
        request = {"op": "get_tree", "paths": list(paths), "max_bytes": max_bytes}
        reply, payload = await self.request(request)
        found, offset = {}, 0
        for name, size in reply["files"]:
            found[name] = payload[offset : offset + size]
            offset += size
        return found

    async def get_tar(self, path: str = ".", *, max_bytes: int) -> bytes:
        """See `Workspace.get_tar`."""
        return (await self.request({"op": "pack", "path": path, "max_bytes": max_bytes}))[1]

    async def list_tree(self, paths: Sequence[str] = (".",)) -> dict[str, Entry]:
        """See `Workspace.list_tree`."""
        reply, _ = await self.request({"op": "list", "paths": list(paths)})
        return {
            path: Entry(kind=kind, mode=mode, size=size, content=content)
            for path, kind, mode, size, content in reply["entries"]
        }

    async def snapshot(self, *, max_bytes: int | None = None) -> Snapshot:
        """See `Workspace.snapshot`."""
        limits = self.spec.limits
        places = 1 + len(self.spec.writable)
        room = 2 * (places * limits.workspace_bytes + 2 * limits.tmp_bytes)  # entries have headers
        request = {"op": "pack", "path": None, "max_bytes": max_bytes or room}
        return Snapshot(image=self.spec.image, data=(await self.request(request))[1])

    async def restore(self, snapshot: Snapshot) -> None:
        """See `Workspace.restore`."""
        if snapshot.image != self.spec.image:
            raise ValueError(
                f"expected a snapshot of image {self.spec.image!r}, got one of {snapshot.image!r}"
            )
        await self.request({"op": "unpack"}, snapshot.data)

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        lifetime_s: float | None = None,
    ) -> Service:
        """See `Workspace.start`."""
        request = self._place("start", argv, env, cwd)
        return Service(self, await self._started(request, lifetime_s))

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
        """See `Workspace.terminal`."""
        request = self._place("start", argv, {"TERM": "xterm", **(env or {})}, cwd)
        number = await self._started(request, lifetime_s, size=[rows, columns])
        return Terminal(self, number, rows=rows, columns=columns)

    async def shell(self, *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Shell:
        """See `Workspace.shell`."""
        request = self._place("start", ["bash"], env, cwd)
        number = await self._started(request, None, shell=True)
        return Shell(self, number, command_s=self.spec.limits.command_s)

    def _place(
        self, op: str, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None
    ) -> dict[str, Any]:
        if not argv:
            raise ValueError("argv must name a program, got nothing")
        place = {"env": {**self.env, **(env or {})}, "cwd": cwd or "."}
        return {"op": op, "argv": list(argv), **place}

    async def _started(
        self, request: Mapping[str, Any], lifetime_s: float | None,
        *, size: list[int] | None = None, shell: bool = False,
    ) -> int:  # fmt: skip
        longest_s = self.spec.limits.lifetime_s if lifetime_s is None else lifetime_s
        more = {"lifetime_s": longest_s, "size": size, "shell": shell}
        return int((await self.request({**request, **more}))[0]["service"])
