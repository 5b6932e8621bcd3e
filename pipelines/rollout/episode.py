"""One episode: act in one workspace, judge in another, and name the boundary where it broke.

The agent's workspace is gone before the verifier's is opened; only the declared artifact crosses.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from ...model import Message
from ...verifiers import Check, Verdict, get_verifier, inspected
from ...verifiers.reward import OUTCOME, Step, process_parts
from ...workspaces import (
    Artifact,
    DiskFull,
    FileRefused,
    Provider,
    WorkspaceError,
    collect,
    lay,
    opened,
    unpack_tree,
)
from ..task import Task
from ..trajectory import SCORED, Status, Timings, Trajectory
from .agent import Agent
from .hard_coding import confirmed
from .judging import panel_of
from .policy import Policy, PolicyError
from .transcript import Transcript

ACTED_AGAIN: frozenset[Status] = frozenset({"policy_error", "workspace_error"})
"""Statuses after which the whole episode is tried again; `verifier_error` repeats only the
verification, and `cancelled` waits for the next run."""
VERIFY_TRIES = 2
OPENINGS = 2
"""Workspaces that an episode opens when all goes well: to act in, and to be graded in."""
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What an episode passes through; each stage waits for something else, so each has a limit."""

    acting: AbstractAsyncContextManager[Any] = field(default_factory=nullcontext)
    """Mostly waits for the policy."""
    grading: AbstractAsyncContextManager[Any] = field(default_factory=nullcontext)
    """Mostly computes here."""


async def run_episode(
    task: Task,
    policy: Policy,
    provider: Provider,
    *,
    run_id: str,
    attempt: int,
    seed: int,
    agent: Agent | None = None,
    image_digests: Mapping[str, str] | None = None,
    keep: Callable[[Trajectory], None] | None = None,
    stages: Stages | None = None,
    judges: Sequence[Policy] = (),
) -> Trajectory:
    """Roll a policy out on a task once and score what it left behind.

    A failure of our machinery ends as a status, never as an exception.

    Args:
        run_id: names the run in `group_id`; runs that are to give equal rows share it.
        attempt: which of the group's episodes this is, from 0.
        image_digests: logical image -> digest, as `Provider.prepare` returns them.
        keep: is handed the trajectory, also the torn one of an episode that is cancelled.
        stages: how many episodes may act and be graded at once; None = no limit.
        judges: who judges where a rubric does.
    """
    episode = _Episode(
        task=task,
        policy=policy,
        provider=provider,
        agent=agent or Agent(),
        seed=seed,
        judges=judges,
    )
    stages = stages or Stages()

    def finished() -> Trajectory:
        digest = (image_digests or {}).get(task.workspace.image, "")
        row = episode.trajectory(run_id=run_id, attempt=attempt, image_digest=digest)
        if keep is not None:
            keep(row)
        return row

    try:
        async with stages.acting:
            await episode.act()
        if episode.status in SCORED and episode.verdict is None:
            async with stages.grading:
                await episode.judge()
    except asyncio.CancelledError:
        episode.status, episode.verdict = "cancelled", None
        finished()
        raise
    return finished()


async def attempt_episode(
    task: Task,
    policy: Policy,
    provider: Provider,
    *,
    run_id: str,
    attempt: int,
    seed: int,
    agent: Agent | None = None,
    image_digests: Mapping[str, str] | None = None,
    keep: Callable[[Trajectory], None] | None = None,
    stages: Stages | None = None,
    judges: Sequence[Policy] = (),
    retries: int = 2,
    backoff_s: float = 1.0,
) -> list[Trajectory]:
    """`run_episode`, again after a failure of ours. Every try is returned; the last one counts."""
    tries: list[Trajectory] = []
    while not tries or (tries[-1].status in ACTED_AGAIN and len(tries) <= retries):
        if tries:
            longest_s = min(backoff_s * 2 ** (len(tries) - 1), MAX_BACKOFF_S)
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))
        row = await run_episode(
            task,
            policy,
            provider,
            run_id=run_id,
            attempt=attempt,
            seed=seed,
            agent=agent,
            image_digests=image_digests,
            keep=keep,
            stages=stages,
            judges=judges,
        )
        tries.append(row)
    return tries


async def verify(
    task: Task,
    artifact: Artifact,
    provider: Provider,
    *,
    calls: Sequence[str] = (),
    judges: Sequence[Policy] = (),
) -> Verdict:
    """Judge an artifact in a fresh workspace that its maker never touched.

    Args:
        calls: what its maker ran and wrote, one text a tool call; reward hacks are named in it.
        judges: who judges where a rubric does.

    Raises:
        WorkspaceError: the workspace failed; nothing is known about the artifact.
    """
    verdict = await _judged(task, artifact, provider, judges)
    return await confirmed(_inspected(verdict, task, artifact, calls), task, artifact, provider)


async def _judged(
    task: Task, artifact: Artifact, provider: Provider, judges: Sequence[Policy]
) -> Verdict:
    # No network: what an agent left could carry the hidden assets to a host on its list.
    apart = replace(task.workspace, network=())
    async with opened(provider, apart, fresh=True) as workspace:
        try:
            await lay(workspace, artifact)
        except (FileRefused, DiskFull) as refusal:
            return _refused(refusal)
        verifier = get_verifier(task.verifier.name, panel=panel_of(judges, task))
        return await verifier.verify(workspace, task.verifier, task.hidden)


@dataclass(kw_only=True)
class _Episode:
    """An episode under way. Whatever ends it, what it has so far becomes its row."""

    task: Task
    policy: Policy
    provider: Provider
    agent: Agent
    seed: int
    judges: Sequence[Policy] = ()
    log: Transcript = field(default_factory=Transcript)
    status: Status = "cancelled"
    error: str = ""
    artifact: Artifact = field(default_factory=lambda: Artifact(files={}))
    verdict: Verdict | None = None
    setup_s: float = 0.0
    verify_s: float = 0.0

    async def act(self) -> None:
        """Let the agent work, then take its artifact out of the workspace."""
        began = time.monotonic()
        try:
            async with opened(self.provider, self.task.workspace) as workspace:
                self.setup_s = time.monotonic() - began
                status = await self.agent.run(
                    self.task, self.policy, workspace, self.log, seed=self.seed
                )
                try:
                    self.artifact = await collect(workspace, self.task.artifacts)
                except FileRefused as refusal:  # a planted link, too many bytes: the agent's doing
                    self.verdict = _inspected(
                        _refused(refusal), self.task, self.artifact, calls_of(self.log.messages)
                    )
                self.status = status
        except PolicyError as error:
            self.status, self.error = "policy_error", _one_line("policy", error)
        except WorkspaceError as error:
            self.status, self.error = "workspace_error", _one_line("workspace", error)

    async def judge(self) -> None:
        """Verify off-box, again when the verifier could not tell."""
        acted, began = self.status, time.monotonic()
        for _ in range(VERIFY_TRIES):
            try:
                calls = calls_of(self.log.messages)
                self.verdict = await verify(
                    self.task, self.artifact, self.provider, calls=calls, judges=self.judges
                )
            except WorkspaceError as error:
                self.verdict = None
                self.status, self.error = "verifier_error", _one_line("verifier", error)
                continue
            if self.verdict.outcome != "unscored":
                self.status, self.error = acted, ""
                break
            self.status, self.error = "verifier_error", "verifier: could not tell; see the verdict"
        self.verify_s = time.monotonic() - began

    def trajectory(self, *, run_id: str, attempt: int, image_digest: str) -> Trajectory:
        """The row of the dataset."""
        task, turns = self.task, tuple(self.log.turns)
        reward = self._reward()
        return Trajectory(
            episode_id=_digest(task.task_id, self.policy.name, attempt, self.seed),
            task_id=task.task_id,
            group_id=_digest(run_id, task.task_id, self.policy.name),
            attempt=attempt,
            family=task.family,
            domain=task.domain,
            policy=self.policy.name,
            tokenizer=self.policy.tokenizer if any(turn.completion_ids for turn in turns) else "",
            agent=f"{self.agent.name}@{self.agent.version}",
            image_digest=image_digest,
            status=self.status,
            error=self.error,
            messages=tuple(self.log.messages),
            tools=self.agent.specs,
            turns=turns,
            artifact=self.artifact,
            verdict=self.verdict,
            reward=reward,
            reward_parts={} if reward is None else self._reward_parts(reward),
            timings=Timings(
                setup_s=self.setup_s,
                policy_s=sum(turn.policy_s for turn in turns),
                tools_s=sum(turn.tools_s for turn in turns),
                verify_s=self.verify_s,
            ),
            provenance=task.provenance,
        )

    def _reward_parts(self, outcome: float) -> dict[str, float]:
        replies = [message for message in self.log.messages if message.role == "assistant"]
        steps = [
            Step(
                text=f"{reply.reasoning} {reply.content}",
                calls=tuple(f"{c.name} {json.dumps(dict(c.arguments))}" for c in reply.tool_calls),
                format_error=turn.format_error is not None,
            )
            for reply, turn in zip(replies, self.log.turns, strict=True)
        ]
        return {OUTCOME: outcome} | process_parts(steps, instruction=self.task.instruction)

    def _reward(self) -> float | None:
        if self.status not in SCORED or self.verdict is None:
            return None
        return reward_of(self.verdict)


def calls_of(messages: Sequence[Message]) -> list[str]:
    """What an agent ran and wrote, one text a tool call."""
    return [
        "\n".join(str(value) for value in call.arguments.values())
        for message in messages
        for call in message.tool_calls
    ]


def _inspected(verdict: Verdict, task: Task, artifact: Artifact, calls: Sequence[str]) -> Verdict:
    return inspected(
        verdict,
        seed=unpack_tree(task.workspace.seed),
        files=artifact.files,
        hidden=task.hidden,
        calls=calls,
    )


def reward_of(verdict: Verdict) -> float:
    """The outcome's part of the reward."""
    return 1.0 if verdict.outcome == "pass" else 0.0


def _refused(refusal: WorkspaceError) -> Verdict:
    check = Check(name="artifact", outcome="fail", evidence=str(refusal))
    return Verdict(outcome="fail", score=0.0, checks=(check,), verifier="artifact@1")


def _one_line(boundary: str, error: Exception) -> str:
    return f"{boundary}: {type(error).__name__}: {' '.join(str(error).split())}"


def _digest(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
