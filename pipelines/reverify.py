"""Scores the stored artifacts of a run again, without any policy, and says what changed.

The old rows are never touched. An episode whose artifact was refused when it left its workspace
keeps its verdict: there is nothing to judge anew.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..verifiers import Check, RubricVerifier, Verdict
from ..verifiers.reward import OUTCOME
from ..workspaces import Provider, WorkspaceError
from .admission import CALIBRATION, AdmissionError, admit
from .dataset.errors import RunError
from .dataset.manifest import read_config, sound_shards
from .dataset.schema import from_row
from .dataset.shards import read_shard
from .dataset.store import Run, read_tasks
from .rollout.episode import calls_of, reward_of, verify
from .rollout.policy import Policy
from .task import Task
from .trajectory import SCORED, Status, Trajectory

JUDGED: frozenset[Status] = SCORED | {"verifier_error"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One episode, judged before and now."""

    shard: int
    before: Trajectory
    now: Trajectory

    @property
    def differs(self) -> bool:
        """Whether outcome or score changed."""
        return _told(self.before.verdict) != _told(self.now.verdict)

    def __str__(self) -> str:
        return (
            f"{self.before.episode_id}  task {self.before.task_id}  {self.before.policy}: "
            f"{_said(self.before.verdict)} -> {_said(self.now.verdict)}{_why(self.now.verdict)}"
        )


async def reverify(
    run: Path,
    provider: Provider,
    *,
    at_once: int = 2,
    judges: Sequence[Policy] = (),
    say: Callable[[str], None] = lambda line: None,
) -> AsyncIterator[Change]:
    """Judge every whole shard of a run again, in the order of its rows.

    Args:
        judges: who judges where a rubric does, once they told the gold solution of that task from
            nothing; else its episodes are `unscored`.
        say: is told how far the judges agreed there.

    Raises:
        RunError: the run cannot be read, or holds an episode without its task.
    """
    tasks = read_tasks(run)
    read_config(run)
    trial = _Trial(provider, judges, say)
    for number, shard in enumerate(sound_shards(run)):
        rows = [from_row(row) for row in read_shard(shard)]
        slots = asyncio.Semaphore(at_once)

        async def again(row: Trajectory, slots: asyncio.Semaphore = slots) -> Trajectory:
            async with slots:
                task = _task_of(row, tasks, run)
                return await _again(row, task, provider, trial)

        for before, now in zip(rows, await asyncio.gather(*map(again, rows)), strict=True):
            yield Change(shard=number, before=before, now=now)


def save_reverified(changes: Sequence[Change], run: Path, out: Path) -> None:
    """Write a run of its own that holds the rows with their new verdicts.

    Raises:
        RunError: `out` is another run, or no folder for one.
        DiskFull: it does not fit.
    """
    with Run.open(out, {**read_config(run), "reverified": True}) as copy:
        for name in ("proposals.jsonl",):
            if (run / name).exists():
                shutil.copyfile(run / name, out / name)
        if not (out / "tasks").exists():
            shutil.copytree(run / "tasks", out / "tasks")
        for shard in sorted({change.shard for change in changes}):
            copy.write_shard(shard, [change.now for change in changes if change.shard == shard])
        copy.finish()


def summary(changes: Sequence[Change]) -> dict[str, int]:
    """How many episodes went from which outcome to which, as `pass -> fail`."""
    turns = Counter(f"{c.before.outcome} -> {c.now.outcome}" for c in changes)
    return dict(sorted(turns.items()))


class _Trial:
    """Puts gold and null of each task of a rubric before the judges, once, before the episodes."""

    def __init__(
        self, provider: Provider, judges: Sequence[Policy], say: Callable[[str], None]
    ) -> None:
        self._provider, self.judges, self._say = provider, judges, say
        self._found: dict[str, asyncio.Future[str]] = {}

    async def failing(self, task: Task) -> str:
        """Why the judges cannot be used for a task; empty = they can, or need not be."""
        if task.verifier.name != RubricVerifier.name:
            return ""
        if task.task_id not in self._found:
            self._found[task.task_id] = asyncio.ensure_future(self._tried(task))
        return await self._found[task.task_id]

    async def _tried(self, task: Task) -> str:
        try:
            found = await admit(task, self._provider, plan=CALIBRATION, judges=self.judges)
        except AdmissionError as error:
            return str(error)
        for line in found.agreements:
            self._say(f"{task.task_id}: {line}")
        return "" if found.admitted else f"{found.reason} {found.detail}".strip()


async def _again(row: Trajectory, task: Task, provider: Provider, trial: _Trial) -> Trajectory:
    refused = row.verdict is not None and row.verdict.verifier.startswith("artifact@")
    if row.status not in JUDGED or refused:
        return row
    if failing := await trial.failing(task):
        return _unscored(row, "judges", f"they do not tell the gold solution from none: {failing}")
    try:
        calls = calls_of(row.messages)
        verdict = await verify(task, row.artifact, provider, calls=calls, judges=trial.judges)
    except WorkspaceError as error:
        return _unscored(row, "workspace", str(error))
    if verdict.outcome == "unscored":
        return _without_score(row, verdict)
    reward = reward_of(verdict)
    status: Status = "submitted" if row.status == "verifier_error" else row.status
    parts = {**row.reward_parts, OUTCOME: reward}
    return replace(row, verdict=verdict, status=status, error="", reward=reward, reward_parts=parts)


def _unscored(row: Trajectory, name: str, evidence: str) -> Trajectory:
    check = Check(name=name, outcome="unscored", evidence=evidence[:300])
    return _without_score(row, Verdict(outcome="unscored", score=0.0, checks=(check,)))


def _without_score(row: Trajectory, verdict: Verdict) -> Trajectory:
    return replace(row, verdict=verdict, status="verifier_error", reward=None, reward_parts={})


def _task_of(row: Trajectory, tasks: dict[str, Task], run: Path) -> Task:
    if row.task_id not in tasks:
        raise RunError(
            f"{run} has an episode of task {row.task_id} but no such task folder; restore "
            f"{run / 'tasks' / row.task_id}"
        )
    return tasks[row.task_id]


def _told(verdict: Verdict | None) -> tuple[str, float] | None:
    return (verdict.outcome, verdict.score) if verdict else None


def _said(verdict: Verdict | None) -> str:
    return f"{verdict.outcome} {verdict.score:.2f} ({verdict.verifier})" if verdict else "none"


def _why(verdict: Verdict | None) -> str:
    failed = [c for c in verdict.checks if c.outcome != "pass"] if verdict else []
    return f"; {failed[0].name}: {failed[0].evidence}"[:200] if failed else ""
