"""A workspace that replays results over files in memory: for tests and dry runs. Starts nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import FileRefused, NetworkRefused, WorkspaceGone
from .trees import members_of, unpack_tree
from .types import WORKDIR, ExecResult, WorkspaceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What `exec` was asked to run."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    timeout_s: float | None = None


class ScriptedWorkspace:
    """Answers each `exec` with the next scripted result, or raises it when it is an exception."""

    def __init__(self, spec: WorkspaceSpec, results: Sequence[ExecResult | Exception]) -> None:
        self.spec = spec
        self.results = list(results)
        self.calls: list[Call] = []
        self.files: dict[str, bytes] = {_clean(p): c for p, c in unpack_tree(spec.seed).items()}
        self.closed = False

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
