"""Which episodes a run owes, and how one shard of them is rolled out.

An episode is known by task, policy and attempt; its seed follows from these and the run's seed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..pipelines.dataset.store import Run
from ..pipelines.rollout.agent import Agent
from ..pipelines.rollout.episode import OPENINGS, Stages, attempt_episode
from ..pipelines.rollout.policy import Policy
from ..pipelines.task import Task
from ..pipelines.trajectory import RETRIED, Trajectory
from ..workspaces import Provider
from . import progress
from .ordered import in_order

EpisodeKey: TypeAlias = tuple[str, str, int]
"""Task id, policy name, attempt."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode to roll out."""

    task: Task
    policy: Policy
    attempt: int
    seed: int

    @property
    def key(self) -> EpisodeKey:
        """What it is known by."""
        return self.task.task_id, self.policy.name, self.attempt


@dataclass(frozen=True, kw_only=True)
class Crew:
    """What all episodes of a run share."""

    run: Run
    provider: Provider
    agent: Agent
    image_digests: Mapping[str, str]
    run_id: str
    concurrency: int
    """Episodes of one shard under way, whatever their stage."""
    stages: Stages
    """What all shards share of each stage."""
    retries: int
    judges: Sequence[Policy] = ()
    """Who judges where a rubric does."""


def plan_shards(
    tasks: Sequence[Task], policies: Sequence[Policy], *, group: int, seed: int, shard_size: int
) -> list[list[Episode]]:
    """Every episode of a run in a fixed order, cut into shards."""
    episodes = [
        Episode(
            task=task,
            policy=policy,
            attempt=attempt,
            seed=_seed(seed, task.task_id, policy.name, attempt),
        )
        for task in tasks
        for policy in policies
        for attempt in range(group)
    ]
    return [episodes[at : at + shard_size] for at in range(0, len(episodes), shard_size)]


async def roll_out(shard: int, episodes: Sequence[Episode], crew: Crew) -> Counter[str]:
    """Roll out what is owed of a shard and write it whole; returns how many had which outcome.

    Episodes that failed in our machinery are owed again on every call.

    Raises:
        RunError: the run directory cannot be read.
        DiskFull: it cannot be written.
    """
    run = crew.run
    rows = {key_of(row): row for row in run.done_episodes(shard).values()}
    rows = {key: row for key, row in rows.items() if row.status not in RETRIED}
    for row in rows.values():
        progress.current().count("episodes", row.outcome)

    async def attempt(episode: Episode) -> Trajectory:
        tries = await attempt_episode(
            episode.task,
            episode.policy,
            crew.provider,
            run_id=crew.run_id,
            attempt=episode.attempt,
            seed=episode.seed,
            agent=crew.agent,
            image_digests=crew.image_digests,
            keep=lambda row: run.add_episode(shard, row),
            stages=crew.stages,
            retries=crew.retries,
            judges=crew.judges,
        )
        progress.current().count("episodes", tries[-1].outcome)
        return tries[-1]

    owed = [episode for episode in episodes if episode.key not in rows]
    for episode in owed:
        crew.provider.expect(episode.task.workspace, OPENINGS)
    async with in_order(attempt, owed, at_once=crew.concurrency) as results:
        async for row in results:
            rows[key_of(row)] = row
    if owed or not run.has_shard(shard):
        run.write_shard(shard, [rows[episode.key] for episode in episodes])
    return Counter(row.outcome for row in rows.values())


def key_of(row: Trajectory) -> EpisodeKey:
    """Which episode a row is of."""
    return row.task_id, row.policy, row.attempt


def _seed(*parts: int | str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:6])
