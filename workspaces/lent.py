"""A workspace on loan from a pool: it serves one spec, and nothing after its close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from .channel import RunnerWorkspace
from .errors import WorkspaceGone
from .types import ExecResult, WorkspaceSpec


class LentWorkspace:
    """See `Workspace`. Whoever holds it after its close reaches nobody's workspace."""

    def __init__(
        self,
        spec: WorkspaceSpec,
        workspace: RunnerWorkspace,
        give_back: Callable[[bool], Coroutine[Any, Any, None]],
    ) -> None:
        """Args:
        give_back: called once, with whether no call was under way.
        """
        self.spec = spec
        self._workspace = workspace
        self._give_back = give_back
        self._calls = 0
        self._closing: asyncio.Task[None] | None = None

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecResult:
        """See `Workspace.exec`."""
        with self._call() as workspace:
            return await workspace.exec(
                argv,
                timeout_s=timeout_s,
                stdin=stdin,
                env={**self.spec.env, **(env or {})},
                cwd=cwd,
            )

    async def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See `Workspace.put`."""
        with self._call() as workspace:
            await workspace.put(path, data, mode=mode)

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        """See `Workspace.get`."""
        with self._call() as workspace:
            return await workspace.get(path, max_bytes=max_bytes)

    async def put_tree(self, tar: bytes, path: str = ".", *, max_bytes: int | None = None) -> None:
        """See `Workspace.put_tree`."""
        with self._call() as workspace:
            await workspace.put_tree(tar, path, max_bytes=max_bytes)

    async def get_tree(self, paths: Sequence[str], *, max_bytes: int) -> dict[str, bytes]:
        """See `Workspace.get_tree`."""
        with self._call() as workspace:
            return await workspace.get_tree(paths, max_bytes=max_bytes)

    async def close(self) -> None:
        """See `Workspace.close`. What still runs is not waited for: its workspace ends."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._give_back(not self._calls))
        await asyncio.shield(self._closing)

    @contextlib.contextmanager
    def _call(self) -> Iterator[RunnerWorkspace]:
        if self._closing is not None:
            raise WorkspaceGone("the workspace is closed")
        self._calls += 1
        try:
            yield self._workspace
        finally:
            self._calls -= 1
