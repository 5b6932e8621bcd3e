"""Whole episodes in Docker: what broke decides what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest

from rollmill.model import Message, ToolCall
from rollmill.pipelines.rollout.authored import ScriptedPolicy, gold_policy, null_policy
from rollmill.pipelines.rollout.episode import Stages, attempt_episode, run_episode
from rollmill.pipelines.rollout.policy import Policy, PolicyError
from rollmill.pipelines.task import Task
from rollmill.pipelines.trajectory import Timings, Trajectory
from rollmill.workspaces import (
    Provider,
    Workspace,
    WorkspaceGone,
    WorkspaceSpec,
    open_provider,
)

from .handmade import FIX, bash, bug_task

pytestmark = pytest.mark.docker

SUBMIT = Message(role="assistant", tool_calls=(ToolCall(name="submit"),))


class FailingProvider:
    """A provider that cannot open some workspaces, counted from 1; the rest it leaves to another.

    Those in `spoiled` open with SPOILED=1 in their environment.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        failing: AbstractSet[int] = frozenset(),
        spoiled: AbstractSet[int] = frozenset(),
    ) -> None:
        self.name, self.networks = provider.name, provider.networks
        self.isolation_gaps = provider.isolation_gaps
        self._provider, self._failing, self._spoiled = provider, failing, spoiled
        self.opened = 0
        self.fresh: list[bool] = []
        """Whether each was asked to be one that nobody used."""
        self.hosts: list[tuple[str, ...]] = []
        """What each was asked to reach."""

    async def prepare(self, images: Sequence[str]) -> dict[str, str]:
        return await self._provider.prepare(images)

    def expect(self, spec: WorkspaceSpec, times: int) -> None:
        self._provider.expect(spec, times)

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> Workspace:
        self.opened += 1
        self.fresh.append(fresh)
        self.hosts.append(spec.network)
        if self.opened in self._failing:
            raise WorkspaceGone("the engine lost it")
        if self.opened in self._spoiled:
            spec = replace(spec, env={**spec.env, "SPOILED": "1"})
        return await self._provider.open(spec, fresh=fresh)

    async def close(self) -> None:
        await self._provider.close()


@pytest.fixture
async def docker() -> AsyncIterator[Provider]:
    provider = open_provider("docker")
    yield provider
    await provider.close()


async def episode(task: Task, policy: Policy, provider: Provider) -> Trajectory:
    return await run_episode(task, policy, provider, run_id="r", attempt=0, seed=3)


def does(*calls: ToolCall) -> Message:
    return Message(role="assistant", tool_calls=calls)


async def test_gold_passes_and_the_row_is_complete(docker: Provider) -> None:
    task = bug_task()
    digests = await docker.prepare(["python"])
    row = await run_episode(
        task, gold_policy(), docker, run_id="r", attempt=2, seed=3, image_digests=digests
    )
    assert (row.status, row.outcome, row.reward) == ("submitted", "pass", 1.0)
    assert (row.error, row.attempt, row.reward_parts) == ("", 2, {"outcome": 1.0})
    assert list(row.artifact.files) == ["calc.py"]
    assert row.image_digest == digests["python"]
    assert min(row.timings.setup_s, row.timings.tools_s, row.timings.verify_s) > 0
    assert len(row.turns) == len(task.solution) + 1
    assert "1 failed, 1 passed" in row.messages[3].content


async def test_a_verdict_is_made_where_nobody_was_before(docker: Provider) -> None:
    provider = FailingProvider(docker)
    row = await episode(bug_task(), gold_policy(), provider)
    assert (row.outcome, provider.fresh) == ("pass", [False, True])


async def test_a_verdict_is_made_without_the_network_of_its_task(docker: Provider) -> None:
    provider, task = FailingProvider(docker), bug_task()
    open_task = replace(task, workspace=replace(task.workspace, network=("pypi.org",)))
    row = await episode(open_task, gold_policy(), provider)
    assert (row.outcome, provider.hosts) == ("pass", [("pypi.org",), ()])


async def test_acting_and_grading_wait_for_a_place_of_their_own(docker: Provider) -> None:
    acting, grading = asyncio.Semaphore(0), asyncio.Semaphore(0)
    provider = FailingProvider(docker)
    running = asyncio.create_task(
        run_episode(
            bug_task(),
            gold_policy(),
            provider,
            run_id="r",
            attempt=0,
            seed=3,
            stages=Stages(acting=acting, grading=grading),
        )
    )
    await asyncio.sleep(0.1)
    assert provider.fresh == []
    acting.release()
    async with acting:  # given back, though nobody grades
        assert provider.fresh == [False]
    await asyncio.sleep(0.1)
    assert provider.fresh == [False]
    grading.release()
    assert (await running).outcome == "pass"


async def test_doing_nothing_fails_and_is_scored(docker: Provider) -> None:
    row = await episode(bug_task(), null_policy(), docker)
    assert (row.status, row.outcome, row.reward) == ("submitted", "fail", 0.0)
    assert row.artifact.files == {}


@pytest.mark.parametrize("policy", [gold_policy(), null_policy()], ids=lambda policy: policy.name)
async def test_a_deterministic_policy_gives_the_same_row_twice(
    docker: Provider, policy: Policy
) -> None:
    def untimed(row: Trajectory) -> Trajectory:
        turns = tuple(replace(turn, policy_s=0.0, tools_s=0.0) for turn in row.turns)
        return replace(row, timings=Timings(), turns=turns)

    first = await episode(bug_task(), policy, docker)
    again = await episode(bug_task(), policy, docker)
    assert untimed(first) == untimed(again)


async def test_what_stands_when_the_budget_is_spent_is_scored(docker: Provider) -> None:
    chatter = Message(role="assistant", content="done?")
    row = await episode(bug_task(), ScriptedPolicy([does(FIX), *[chatter] * 3]), docker)
    assert (row.status, row.outcome, row.reward) == ("format_limit", "pass", 1.0)


async def test_a_policy_error_keeps_its_turns_and_has_no_reward(docker: Provider) -> None:
    policy = ScriptedPolicy([does(FIX), PolicyError("the endpoint\nis down")])
    row = await episode(bug_task(), policy, docker)
    assert (row.status, row.outcome, row.reward) == ("policy_error", "unscored", None)
    assert row.error == "policy: PolicyError: the endpoint is down"
    assert (len(row.turns), row.reward_parts) == (1, {})


async def test_an_engine_that_fails_the_agent_is_a_workspace_error(docker: Provider) -> None:
    provider = FailingProvider(docker, failing={1})
    row = await episode(bug_task(), gold_policy(), provider)
    assert (row.status, row.outcome, row.reward) == ("workspace_error", "unscored", None)
    assert row.error == "workspace: WorkspaceGone: the engine lost it"


async def test_an_engine_that_fails_the_verifier_is_a_verifier_error(docker: Provider) -> None:
    provider = FailingProvider(docker, failing={2, 3})
    row = await episode(bug_task(), gold_policy(), provider)
    assert (row.status, row.outcome, row.reward) == ("verifier_error", "unscored", None)
    assert list(row.artifact.files) == ["calc.py"]
    assert len(row.turns) == 4


async def test_verification_alone_is_tried_again(docker: Provider) -> None:
    provider = FailingProvider(docker, failing={2})
    row = await episode(bug_task(), gold_policy(), provider)
    assert (row.status, row.outcome, row.error) == ("submitted", "pass", "")
    assert provider.opened == 3


async def test_every_try_is_returned_and_the_last_one_counts(docker: Provider) -> None:
    provider = FailingProvider(docker, failing={1, 2})
    rows = await attempt_episode(
        bug_task(), gold_policy(), provider, run_id="r", attempt=0, seed=3, backoff_s=0.01
    )
    assert [row.status for row in rows] == ["workspace_error", "workspace_error", "submitted"]
    assert len({row.episode_id for row in rows}) == 1


async def test_patience_has_an_end(docker: Provider) -> None:
    rows = await attempt_episode(
        bug_task(),
        ScriptedPolicy([PolicyError("down")]),
        docker,
        run_id="r",
        attempt=0,
        seed=3,
        retries=1,
        backoff_s=0.01,
    )
    assert [row.status for row in rows] == ["policy_error"] * 2


@pytest.mark.parametrize(
    "trick",
    [
        "rm calc.py; ln -s /etc/passwd calc.py",
        "rm calc.py; mkfifo calc.py",
        "head -c 40000000 /dev/zero > calc.py",
    ],
)
async def test_an_artifact_that_may_not_leave_is_a_failed_piece_of_work(
    docker: Provider, trick: str
) -> None:
    row = await episode(bug_task(), ScriptedPolicy([does(bash(trick)), SUBMIT]), docker)
    assert (row.status, row.outcome, row.reward, row.error) == ("submitted", "fail", 0.0, "")
    assert row.verdict is not None
    first, *notices = row.verdict.checks
    assert (first.name, first.outcome) == ("artifact", "fail")
    assert "calc.py" in first.evidence
    assert "notice:refused_file" in [notice.name for notice in notices]


async def test_a_file_where_a_folder_was_is_judged_not_an_error_of_ours(docker: Provider) -> None:
    task = bug_task(artifacts=(".",))
    policy = ScriptedPolicy([does(bash("rm calc.py; mkdir calc.py; echo x > calc.py/a")), SUBMIT])
    row = await episode(task, policy, docker)
    assert (row.status, row.outcome) == ("submitted", "fail")


async def test_only_declared_files_leave_the_workspace(docker: Provider) -> None:
    policy = ScriptedPolicy([does(bash("echo 'assert True' > test_calc.py; touch x")), SUBMIT])
    row = await episode(bug_task(), policy, docker)
    assert (row.artifact.files, row.outcome) == ({}, "fail")


async def test_a_cancelled_episode_is_handed_over_and_the_cancellation_goes_on(
    docker: Provider,
) -> None:
    kept: list[Trajectory] = []
    running = asyncio.create_task(
        run_episode(
            bug_task(),
            ScriptedPolicy([does(bash("sleep 60"))]),
            docker,
            run_id="r",
            attempt=0,
            seed=3,
            keep=kept.append,
        )
    )
    await asyncio.sleep(2.0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(row.status, row.reward, len(row.turns)) for row in kept] == [("cancelled", None, 1)]


async def test_ids_depend_on_what_was_run_and_groups_on_the_run(docker: Provider) -> None:
    async def ids(run_id: str, attempt: int, seed: int) -> tuple[str, str]:
        provider = FailingProvider(docker, failing={1})  # fails at once: ids are all we need
        row = await run_episode(
            bug_task(), null_policy(), provider, run_id=run_id, attempt=attempt, seed=seed
        )
        return row.episode_id, row.group_id

    base, same, other = await ids("r", 0, 1), await ids("r", 1, 1), await ids("s", 0, 1)
    assert base[0] != same[0]
    assert base[1] == same[1]
    assert base[0] == other[0]
    assert base[1] != other[1]
    assert base[0] != (await ids("r", 0, 2))[0]
