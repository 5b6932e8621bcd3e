"""Several engines as one: the least loaded opens the next workspace, one that fails is left alone.

All of them run the same image: what one built is copied to the others. It moves no workspace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from .channel import RunnerWorkspace
from .docker import RETURN_S, DockerProvider
from .errors import EngineUnavailable, WorkspaceGone
from .types import WorkspaceSpec

log = logging.getLogger(__name__)

DRAINED_S = 15.0
"""How long an engine that failed is left alone before it is tried again."""
LOST = (EngineUnavailable, WorkspaceGone)


class Fleet:
    """Opens workspaces on the engines of its members. One instance belongs to one event loop."""

    name = "docker"
    networks = True
    isolation_gaps: tuple[str, ...] = ()

    def __init__(
        self,
        engines: Sequence[str],
        *,
        run_id: str = "",
        patience_s: float = RETURN_S,
        drained_s: float = DRAINED_S,
    ) -> None:
        """Args:
        engines: their addresses, see `dialling.py`.
        patience_s: how long to wait when none answers that answered before.
        drained_s: how long an engine that failed is left alone.
        """
        self.members = [DockerProvider(run_id=run_id, engine=e, patience_s=0.0) for e in engines]
        self._patience_s, self._drained_s = patience_s, drained_s
        self._drained: dict[DockerProvider, float] = {}
        """Until when, by `time.monotonic()`."""
        self._digests: dict[str, str] = {}
        self._preparing = asyncio.Lock()

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`; the first engine that answers builds what is missing."""
        async with self._preparing:
            missing = [name for name in images if name not in self._digests]
            if missing:
                self._digests |= await self._prepared(missing)
        return {name: self._digests[name] for name in images}

    async def _prepared(self, names: Sequence[str]) -> dict[str, str]:
        failure: Exception | None = None
        for member in self._candidates():
            try:
                return await member.prepare(names)
            except EngineUnavailable as error:
                self._drain(member, error)
                failure = error
        raise failure or EngineUnavailable(
            f"none of {len(self.members)} engines answers; the last that failed is tried again "
            f"after {self._drained_s:g} s"
        )

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        """See `Provider.open`; every one is fresh."""
        await self.prepare([spec.image])
        give_up = time.monotonic() + self._patience_s
        while True:
            failure: Exception | None = None
            for member in self._candidates():
                try:
                    return await self._open_on(member, spec)
                except LOST as error:
                    self._drain(member, error)
                    failure = error
            if time.monotonic() >= give_up:
                raise failure or EngineUnavailable(f"all {len(self.members)} engines are drained")
            await asyncio.sleep(0.5)
            self._drained.clear()  # nobody is left, so everybody is asked again

    async def _open_on(self, member: DockerProvider, spec: WorkspaceSpec) -> RunnerWorkspace:
        if not member.has(spec.image, self._digests[spec.image]):
            await self._adopt(member, spec.image)
        return await member.open(spec)

    async def _adopt(self, member: DockerProvider, name: str) -> None:
        digest = self._digests[name]
        makers = [one for one in self.members if one is not member and one.has(name, digest)]
        if not makers:  # the first of all, or all others are gone: it must have the same already
            await member.prepare([name])
        else:
            await member.adopt(name, makers[0])
        if not member.has(name, digest):
            raise EngineUnavailable(f"{member.engine} has another build of {name}")

    async def close(self) -> None:
        """See `Provider.close`."""
        await asyncio.gather(*(member.close() for member in self.members))

    def _candidates(self) -> list[DockerProvider]:
        """The engines that are not drained, least loaded first."""
        now = time.monotonic()
        alive = [member for member in self.members if self._drained.get(member, now) <= now]
        return sorted(alive, key=lambda member: member.load)

    def _drain(self, member: DockerProvider, error: Exception) -> None:
        log.warning("engine %s is drained: %s", member.engine, error)
        self._drained[member] = time.monotonic() + self._drained_s
