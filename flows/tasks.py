"""Tasks from families and sources: propose, build, admit, keep the first that hold.

Which tasks a run holds depends on its configuration alone: proposals are taken in a fixed order,
and what is decided early is used only once everything before it is decided.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..pipelines.admission import QUICK, Admission, Plan, admit
from ..pipelines.dataset.records import ProposalRecord, Stage
from ..pipelines.dataset.store import Run
from ..pipelines.family import Family, Proposal, Rejected
from ..pipelines.rollout.policy import Policy
from ..pipelines.task import Task
from ..workspaces import DiskFull, EngineUnavailable, Provider, WorkspaceError
from . import progress
from .ordered import in_order

LEAST_AT_ONCE = 2
"""Proposals of a family under way."""
MACHINERY_TRIES = 3
PROPOSALS_PER_TASK = 40
"""A family that admits less than one proposal in so many is given up on."""


@dataclass(frozen=True, kw_only=True)
class Supply:
    """A family with its sources made ready, and how many tasks are wanted of it."""

    family: Family[Any]
    sources: Mapping[str, Any]
    """Source name -> what `Family.prepare` made of it."""
    quota: int


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What became of one proposal. `task` is set when it holds."""

    record: ProposalRecord
    task: Task | None = None
    admission: Admission | None = None


async def prepare_supplies(
    families: Sequence[Family[Any]],
    chosen: Mapping[str, Sequence[str]],
    *,
    n: int,
    seed: int,
    provider: Provider,
    cache: Path,
    concurrency: int,
) -> list[Supply]:
    """Make the sources ready that `n` tasks are spread over; at most one source a task.

    Args:
        chosen: family name -> sources to choose from.

    Raises:
        SourceError: a source cannot give tasks.
        WorkspaceError: the machinery failed.
    """
    wanted: list[tuple[Family[Any], str]] = []
    quotas = share(n, len(families))
    for family, quota in zip(families, quotas, strict=True):
        names = list(chosen[family.name])
        random.Random(f"{seed}/{family.name}").shuffle(names)
        wanted += [(family, name) for name in names[:quota]]
    progress.current().begin("sources", len(wanted))

    async def prepare(item: tuple[Family[Any], str]) -> tuple[str, str, Any]:
        family, name = item
        ready = await family.prepare(name, provider, cache)
        progress.current().count("sources", "ready")
        return family.name, name, ready

    async with in_order(prepare, wanted, at_once=concurrency) as results:
        ready = [result async for result in results]
    return [
        Supply(
            family=family,
            sources={name: source for owner, name, source in ready if owner == family.name},
            quota=quota,
        )
        for family, quota in zip(families, quotas, strict=True)
        if quota
    ]


async def make_tasks(
    run: Run,
    supplies: Sequence[Supply],
    *,
    seed: int,
    provider: Provider,
    concurrency: int,
    judges: Sequence[Policy] = (),
    plan: Plan = QUICK,
) -> list[Task]:
    """The tasks of a run, made where they are not recorded yet, in the order of admission.

    The families are worked on together: what one waits for is time for another.
    """
    progress.current().begin("tasks", sum(supply.quota for supply in supplies))
    stored = run.tasks()
    makers = [
        _Maker(run, supply, stored, seed=seed, provider=provider, judges=judges, plan=plan)
        for supply in supplies
    ]
    each = max(LEAST_AT_ONCE, concurrency // len(makers))

    async def make(maker: _Maker) -> list[Task]:
        return await maker.make(each)

    async with in_order(make, makers, at_once=len(makers)) as results:
        return [task async for made in results for task in made]


class _Maker:
    """Makes the tasks of one family."""

    def __init__(
        self,
        run: Run,
        supply: Supply,
        stored: Mapping[str, Task],
        *,
        seed: int,
        provider: Provider,
        judges: Sequence[Policy],
        plan: Plan,
    ) -> None:
        self._run = run
        self._supply = supply
        self._stored = stored
        self._seed = seed
        self._provider = provider
        self._judges = judges
        self._plan = plan
        name = supply.family.name
        self._known = {record.key: record for record in run.proposals() if record.family == name}

    async def make(self, concurrency: int) -> list[Task]:
        """The first tasks that hold, at most the quota."""
        kept: dict[str, Task] = {}
        quota, limit = self._supply.quota, self._supply.quota * PROPOSALS_PER_TASK
        async with in_order(self._decide, self._proposals(), at_once=concurrency) as decisions:
            seen = 0
            async for decision in decisions:
                task = self._commit(decision, kept)
                if task is not None:
                    kept[task.task_id] = task
                seen += 1
                if len(kept) == quota or seen >= limit:
                    break
        if len(kept) < quota:
            progress.current().say(
                f"{self._supply.family.name}: {len(kept)} tasks instead of {quota}; "
                f"{seen} proposals of {', '.join(self._supply.sources)} gave no more"
            )
        return list(kept.values())

    def _proposals(self) -> Iterator[tuple[Any, Proposal]]:
        """Each source in turn gives one, so that tasks spread over the sources."""
        turns = [
            (source, self._supply.family.propose(source, seed=self._seed))
            for source in self._supply.sources.values()
        ]
        while turns:
            going = []
            for source, proposals in turns:
                proposal = next(proposals, None)
                if proposal is not None:
                    yield source, proposal
                    going.append((source, proposals))
            turns = going

    async def _decide(self, item: tuple[Any, Proposal]) -> _Decision:
        source, proposal = item
        known = self._known.get(proposal.key)
        if known is not None:
            return _Decision(record=known, task=self._stored.get(known.task_id))
        for last_try in (False,) * (MACHINERY_TRIES - 1) + (True,):
            try:
                return await self._try(source, proposal)
            except (EngineUnavailable, DiskFull):
                raise
            except WorkspaceError as error:
                if last_try:
                    reason, detail = "machinery", f"{type(error).__name__}: {error}"
                    return _Decision(record=self._record(proposal, "proposed", reason, detail))
        raise AssertionError("the last try returns or raises")

    async def _try(self, source: Any, proposal: Proposal) -> _Decision:
        began = time.monotonic()
        try:
            task = await self._supply.family.build(source, proposal, self._provider)
        except Rejected as rejection:
            record = self._record(
                proposal,
                "proposed",
                rejection.reason,
                str(rejection),
                build_s=time.monotonic() - began,
            )
            return _Decision(record=record)
        build_s = time.monotonic() - began
        admission = await admit(task, self._provider, plan=self._plan, judges=self._judges)
        task = admission.task
        gold_passed = any(verdict.outcome == "pass" for verdict in admission.gold)
        stage: Stage = "gold_valid" if gold_passed else "built"
        record = self._record(
            proposal,
            "admitted" if admission.admitted else stage,
            "" if admission.admitted else admission.reason,
            admission.detail,
            task_id=task.task_id,
            build_s=build_s,
            admit_s=admission.wall_s,
            bytes=admission.task_bytes,
        )
        kept = task if admission.admitted else None
        return _Decision(record=record, task=kept, admission=admission)

    def _record(
        self, proposal: Proposal, stage: Stage, reason: str = "", detail: str = "", **more: Any
    ) -> ProposalRecord:
        return ProposalRecord(
            family=self._supply.family.name,
            key=proposal.key,
            source=proposal.source,
            stage=stage,
            reason=reason,
            detail=detail,
            **more,
        )

    def _commit(self, decision: _Decision, kept: Mapping[str, Task]) -> Task | None:
        """Write a decision down, now that everything before it is; the task when it is kept."""
        record, task = decision.record, decision.task
        if task is not None and task.task_id in kept:
            fields = asdict(record) | {"stage": "gold_valid", "reason": "duplicate"}
            record, task = ProposalRecord(**fields), None
        if task is not None and decision.admission is not None:
            self._run.save_task(task, decision.admission.evidence())
            for line in decision.admission.agreements:
                progress.current().say(f"{task.task_id}: {line}")
        if self._known.get(record.key) != record:
            self._run.record_proposal(record)
        admitted = task is not None
        what = "admitted" if admitted else "rejected"
        progress.current().count("tasks", what, advance=int(admitted))
        return task


def share(n: int, parts: int) -> list[int]:
    """`n` split into `parts` as evenly as can be, the larger shares first."""
    return [n // parts + (index < n % parts) for index in range(parts)]
