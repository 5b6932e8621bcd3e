"""Workspaces kept ready: started ahead of their use, made new after it, and proven so.

A used workspace is emptied and its whole state compared with that of its own start; on any doubt it
is thrown away. Who asks for a fresh one, as every verdict does, gets one nobody used, and nobody
gets it afterwards. Process ids go on counting in a recycled workspace and its clocks show when it
was started; nothing else tells it from a new one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from .channel import RunnerWorkspace
from .errors import WorkspaceError
from .lent import LentWorkspace
from .types import Limits, WorkspaceSpec

log = logging.getLogger(__name__)

Kind: TypeAlias = tuple[str, Limits]
"""Image and limits: what a workspace is started with; seed and environment come with each use."""


class RunnerProvider(Protocol):
    """A provider whose workspaces can be renewed."""

    name: str
    networks: bool
    isolation_gaps: tuple[str, ...]

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`."""
        ...

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        """See `Provider.open`."""
        ...

    async def close(self) -> None:
        """See `Provider.close`."""
        ...


def _apart(spec: WorkspaceSpec) -> bool:
    """Whether it is for one use: it may fetch things, or change what is its image's."""
    return bool(spec.network or spec.writable)


@dataclass(slots=True)
class Shelf:
    """What waits of one kind, and what is known to be wanted."""

    new: deque[RunnerWorkspace] = field(default_factory=deque)
    used: deque[RunnerWorkspace] = field(default_factory=deque)
    starting: int = 0
    """Started ahead and not there yet."""
    awaited: int = 0
    """Openings that wait for one of those."""
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever a start ahead has ended, well or not."""
    expected: int | None = None
    """Openings still to come; None = nobody said."""


@dataclass(slots=True)
class History:
    """What one workspace went through."""

    started: float
    """`time.monotonic()`."""
    uses: int = 0


class PooledProvider:
    """Lends the workspaces of another provider. One instance belongs to one event loop.

    Args:
        ahead: how many unused workspaces of a kind are kept ready while a schedule asks for them.
        idle: how many in all may wait; the kind not asked for longest gives way.
        reuses: after how many uses a workspace is thrown away in any case.
        starts: how many are started at once; None = one a CPU.
    """

    def __init__(
        self,
        inner: RunnerProvider,
        *,
        ahead: int = 4,
        idle: int = 16,
        reuses: int = 100,
        starts: int | None = None,
    ) -> None:
        self.name, self.networks = inner.name, inner.networks
        self.isolation_gaps = inner.isolation_gaps
        self.counts: Counter[str] = Counter()
        """`started`, `ahead` (taken unused), `recycled` (taken again), `doubted`, `worn`."""
        self._inner = inner
        self._ahead, self._idle, self._reuses = ahead, idle, reuses
        self._starts = asyncio.Semaphore(starts or os.cpu_count() or 1)
        self._shelves: dict[Kind, Shelf] = {}
        self._histories: dict[RunnerWorkspace, History] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._closed = False

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        """See `Provider.prepare`."""
        return await self._inner.prepare(images)

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        """See `Provider.expect`. Workspaces are started ahead, as far as the schedule goes."""
        if _apart(spec):  # they are never kept ready
            return
        kind = (spec.image, spec.limits)
        shelf = self._shelf(kind)
        shelf.expected = (shelf.expected or 0) + times
        self._fill(kind, shelf)

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> LentWorkspace:
        """See `Provider.open`."""
        if _apart(spec):
            return await self._open_apart(spec)
        kind = (spec.image, spec.limits)
        shelf = self._shelf(kind)
        if shelf.expected is not None:  # who opens more than was said says no more what comes
            shelf.expected = shelf.expected - 1 if shelf.expected else None
        while (workspace := await self._take(shelf, fresh=fresh)) is None:
            if shelf.starting <= shelf.awaited:
                workspace = await self._start(kind)
                break
            await self._arrival(shelf)
        self._fill(kind, shelf)
        self._histories[workspace].uses += 1
        try:
            if spec.seed:
                await workspace.put_tree(spec.seed)
        except BaseException:
            await self._discard(workspace)
            raise

        async def give_back(whole: bool) -> None:
            wanted = whole and not fresh and not self._closed and shelf.expected != 0
            if not wanted or not self._lasts(kind, workspace):
                await self._discard(workspace)
            elif await self._renewed(workspace):
                shelf.used.append(workspace)
                await self._make_room()

        return LentWorkspace(spec, workspace, give_back)

    async def _open_apart(self, spec: WorkspaceSpec) -> LentWorkspace:
        """A workspace that nobody gets after its only user."""
        async with self._starts:
            workspace = await self._inner.open(spec)
        self.counts["started"] += 1

        async def give_back(_: bool) -> None:
            await workspace.close()

        return LentWorkspace(spec, workspace, give_back)

    async def close(self) -> None:
        """See `Provider.close`."""
        self._closed = True
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._inner.close()

    def _shelf(self, kind: Kind) -> Shelf:
        """The shelf of a kind; the kind asked for last stands last."""
        shelf = self._shelves[kind] = self._shelves.pop(kind, Shelf())
        return shelf

    async def _take(self, shelf: Shelf, *, fresh: bool) -> RunnerWorkspace | None:
        """A waiting workspace that proves to be as new; None = there is none."""
        waiting = [("ahead", shelf.new)] if fresh else [
            ("recycled", shelf.used), ("ahead", shelf.new)
        ]  # fmt: skip
        for how, row in waiting:
            while row:
                workspace = row.popleft()
                if await self._renewed(workspace):  # it may have died while it waited
                    self.counts[how] += 1
                    return workspace
        return None

    async def _arrival(self, shelf: Shelf) -> None:
        """Wait for one that is being started already."""
        shelf.awaited += 1
        try:
            await shelf.arrival.wait()
        finally:
            shelf.awaited -= 1

    async def _start(self, kind: Kind) -> RunnerWorkspace:
        image, limits = kind
        async with self._starts:
            workspace = await self._inner.open(WorkspaceSpec(image=image, limits=limits))
        self.counts["started"] += 1
        self._histories[workspace] = History(time.monotonic())
        return workspace

    def _fill(self, kind: Kind, shelf: Shelf) -> None:
        """Start ahead what is expected; where nobody says what comes, one."""
        wanted = 1 if shelf.expected is None else min(self._ahead, shelf.expected)
        busy = [one for one in self._shelves.values() if one.expected != 0]
        room = self._idle - sum(len(one.new) + len(one.used) + one.starting for one in busy)
        for _ in range(min(room, wanted - len(shelf.new) - shelf.starting)):
            shelf.starting += 1
            self._in_background(self._start_ahead(kind, shelf))

    async def _start_ahead(self, kind: Kind, shelf: Shelf) -> None:
        try:
            workspace = await self._start(kind)
        except WorkspaceError as error:  # the next to open one hears of it first-hand
            log.debug("could not start a workspace ahead: %s", error)
        else:
            shelf.new.append(workspace)
        finally:
            shelf.starting -= 1
            shelf.arrival.set()
            shelf.arrival = asyncio.Event()
        await self._make_room()

    def _lasts(self, kind: Kind, workspace: RunnerWorkspace) -> bool:
        """Whether it may be used again; it must also end within twice its lifetime."""
        history = self._histories[workspace]
        age_s = time.monotonic() - history.started
        lasts = history.uses < self._reuses and age_s < kind[1].lifetime_s
        self.counts["worn"] += not lasts
        return lasts

    async def _make_room(self) -> None:
        shelves = self._shelves.values()
        while sum(len(shelf.new) + len(shelf.used) for shelf in shelves) > self._idle:
            shelf = next(shelf for shelf in shelves if shelf.new or shelf.used)
            await self._discard((shelf.used or shelf.new).popleft())

    async def _renewed(self, workspace: RunnerWorkspace) -> bool:
        """Renew a workspace, or throw it away."""
        sure = False
        try:
            sure = await workspace.renew()
        finally:
            if not sure:
                self.counts["doubted"] += 1
                await self._discard(workspace)
        return sure

    async def _discard(self, workspace: RunnerWorkspace) -> None:
        self._histories.pop(workspace, None)
        await workspace.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
