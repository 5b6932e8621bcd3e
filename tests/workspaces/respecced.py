"""A provider that opens another one's workspaces with a changed spec, for running the contract."""

from collections.abc import Callable, Sequence

from rollmill.workspaces import Provider, Workspace, WorkspaceSpec


class Respecced:
    """Args:
    inner: the provider that opens.
    change: what it is given for a spec.
    """

    def __init__(self, inner: Provider, change: Callable[[WorkspaceSpec], WorkspaceSpec]) -> None:
        self.name, self.networks = inner.name, inner.networks
        self.isolation_gaps = inner.isolation_gaps
        self._inner, self._change = inner, change

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        return await self._inner.prepare(images)

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        self._inner.expect(self._change(spec), times)

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> Workspace:
        return await self._inner.open(self._change(spec), fresh=fresh)

    async def close(self) -> None:
        await self._inner.close()
