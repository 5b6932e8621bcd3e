"""A workspace on loan from a pool: it serves one spec, and nothing after its close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from .channel import RunnerWorkspace
from .client import RunnerClient
from .errors import WorkspaceGone
from .types import WorkspaceSpec


class LentWorkspace(RunnerClient):
    """See `Workspace`. Whoever holds it, or a service of it, after its close reaches nobody's."""

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

    @property
    def env(self) -> Mapping[str, str]:
        """See `RunnerClient.env`."""
        return {**self._workspace.env, **self.spec.env}

    async def request(
        self, header: Mapping[str, Any], payload: bytes = b"", *, patience_s: float = 300.0
    ) -> tuple[dict[str, Any], bytes]:
        """See `RunnerWorkspace.request`."""
        if self._closing is not None:
            raise WorkspaceGone("the workspace is closed")
        self._calls += 1
        try:
            return await self._workspace.request(header, payload, patience_s=patience_s)
        finally:
            self._calls -= 1

    async def close(self) -> None:
        """See `Workspace.close`. What still runs is not waited for: its workspace ends."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._give_back(not self._calls))
        await asyncio.shield(self._closing)
