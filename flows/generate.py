"""The flow `generate`: sources in, a run directory with tasks and trajectories out.

Run it again with the same configuration and `out` to finish what is owed; nothing is done twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from ..pipelines.dataset.errors import RunError
from ..pipelines.rollout.agent import Agent
from ..pipelines.rollout.episode import Stages
from ..pipelines.rollout.judging import opened_judges
from ..pipelines.rollout.policies import answering, open_policy
from ..workspaces import DiskFull, EngineUnavailable
from . import progress
from .checks import check_generate
from .config import GenerateConfig
from .episodes import Crew, Episode, plan_shards, roll_out
from .errors import WorkFailed
from .ordered import in_order
from .session import opened_session
from .start import at_start

SHARD_RETRIES = 2
SHARD_RETRY_DELAY_S = 5.0
SHARDS_AT_ONCE = 2
"""The next shard starts while the slowest episodes of one come in."""
HOPELESS = (RunError, DiskFull, EngineUnavailable)
"""What a shard's retry would only meet again."""


@flow(name="generate")
async def generate(config: GenerateConfig) -> dict[str, Any]:
    """Make tasks, roll policies out on them, and write the dataset.

    Returns: where the run lies, how many tasks and episodes it holds, and its content digest.
    """
    config = at_start(config)
    check_generate(config)
    async with AsyncExitStack() as stack:
        policies = [
            await stack.enter_async_context(answering(open_policy(spec))) for spec in config.policy
        ]
        judges = await stack.enter_async_context(opened_judges(config.judge))
        session = await stack.enter_async_context(opened_session(config))
        tasks = await session.make_tasks(judges)
        shards = plan_shards(
            tasks, policies, group=config.group, seed=config.seed, shard_size=config.shard_size
        )
        crew = Crew(
            run=session.run,
            provider=session.provider,
            agent=Agent(sampling=config.sampling),
            image_digests=session.image_digests,
            run_id=config.run_id,
            concurrency=config.concurrency + config.grading_concurrency,
            stages=Stages(
                acting=asyncio.Semaphore(config.concurrency),
                grading=asyncio.Semaphore(config.grading_concurrency),
            ),
            retries=config.retries,
            judges=judges,
        )
        outcomes = await _roll_out_all(shards, crew)
        manifest = session.run.finish()
    if not outcomes["pass"] + outcomes["fail"]:
        raise WorkFailed(
            f"none of {len(tasks)} tasks and {manifest.rows} episodes in {config.out} was scored; "
            "`rollmill report` says why, the same command tries again what our machinery failed"
        )
    return {
        "run": str(config.out),
        "run_id": config.run_id,
        "tasks": len(tasks),
        "episodes": manifest.rows,
        "outcomes": {name: outcomes[name] for name in ("pass", "fail", "unscored")},
        "content_digest": manifest.content_digest,
    }


async def _roll_out_all(shards: Sequence[Sequence[Episode]], crew: Crew) -> Counter[str]:
    @task(
        name="shard",
        task_run_name="shard-{number}",
        retries=SHARD_RETRIES,
        retry_delay_seconds=SHARD_RETRY_DELAY_S,
        retry_condition_fn=_worth_a_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    async def shard(number: int) -> Counter[str]:
        return await roll_out(number, shards[number], crew)

    progress.current().begin("episodes", sum(map(len, shards)))
    outcomes: Counter[str] = Counter()
    async with in_order(shard, range(len(shards)), at_once=SHARDS_AT_ONCE) as results:
        async for counted in results:
            outcomes += counted
    return outcomes


async def _worth_a_retry(task: Any, run: Any, state: Any) -> bool:
    error = await state.result(raise_on_failure=False)
    return not isinstance(error, HOPELESS)
