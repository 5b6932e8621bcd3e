"""An episode whose agent attacks its workspace ends in the status that its rule names.

They run beside neighbours that do honest work and must not feel it.
"""

import asyncio
import os
from dataclasses import dataclass, replace

import pytest

from rollmill.model import Message, ToolCall
from rollmill.pipelines.rollout.authored import ScriptedPolicy, gold_policy
from rollmill.pipelines.rollout.episode import run_episode
from rollmill.pipelines.rollout.policy import Policy
from rollmill.pipelines.task import Budget, Task
from rollmill.pipelines.trajectory import Status, Trajectory
from rollmill.workspaces import MIB, Limits, leftovers, open_provider

from .handmade import BROKEN, FIX, bash, bug_task

pytestmark = pytest.mark.docker

RUN_ID = f"attacked-{os.getpid()}"
TIGHT = Limits(memory_bytes=512 * MIB, pids=64, workspace_bytes=32 * MIB, tmp_bytes=32 * MIB)
HONEST = Budget(max_turns=12, time_limit_s=240)
SUBMIT = ToolCall(name="submit")
FIXED = BROKEN.decode().replace("a > b", "a < b")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What an agent does, and how its episode must end."""

    calls: tuple[ToolCall, ...]
    status: Status = "submitted"
    outcome: str = "pass"
    budget: Budget = HONEST
    limits: Limits = TIGHT


CASES = {
    "fork bomb, then the work": Case(
        calls=(bash("f() { f | f & }; f; sleep 100"), FIX, SUBMIT),
        limits=replace(TIGHT, command_s=2),
    ),
    "memory hog, then the work": Case(
        calls=(bash("python3 -c 'x = bytearray(1 << 30)'"), FIX, SUBMIT)
    ),
    "a flood, then the work": Case(calls=(bash("head -c 200M /dev/zero"), FIX, SUBMIT)),
    "killing everybody, then the work": Case(
        calls=(bash("kill -9 -1; kill -9 1"), FIX, SUBMIT)
    ),
    "a full disk, nothing done": Case(
        calls=(bash("head -c 1G /dev/zero > junk"), FIX, bash("head -c 1G /dev/zero > calc.py"),
               SUBMIT),
        outcome="fail",
    ),
    "a daemon that would undo the work": Case(
        calls=(bash("setsid nohup sh -c 'while :; do echo broken > calc.py; done' "
                    "> /dev/null 2>&1 & sleep 0.2"),
               ToolCall(name="write_file", arguments={"path": "calc.py", "content": FIXED}),
               bash("sleep 0.2"), SUBMIT),
    ),
    "sleeping for ever": Case(
        calls=(bash("sleep 100000"),),
        status="time_limit",
        outcome="fail",
        budget=Budget(max_turns=12, time_limit_s=4),
    ),
    "attacks without end": Case(
        calls=(bash("kill -9 -1"),) * 4, status="step_limit", outcome="fail",
        budget=Budget(max_turns=4, time_limit_s=120),
    ),
    "outliving the workspace": Case(
        calls=(bash("sleep 100"),), status="workspace_error", outcome="unscored",
        limits=replace(TIGHT, lifetime_s=4.0, command_s=60),
    ),
}  # fmt: skip


NEIGHBOURS = 2
AT_ONCE = 4


@pytest.fixture(scope="module")
def rows() -> dict[str, Trajectory]:
    """How each case ended, and the neighbours that were at work beside them."""

    async def all_of_them() -> dict[str, Trajectory]:
        provider = open_provider("docker", run_id=RUN_ID)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, task: Task, policy: Policy) -> tuple[str, Trajectory]:
            async with places:
                return name, await run_episode(
                    task, policy, provider, run_id=RUN_ID, attempt=0, seed=1
                )

        work = [one(f"neighbour {n}", bug_task(), gold_policy()) for n in range(NEIGHBOURS)]
        work += [one(name, attacked(case), scripted(case)) for name, case in CASES.items()]
        try:
            return dict(await asyncio.gather(*work))
        finally:
            await provider.close()

    return asyncio.run(all_of_them())


def attacked(case: Case) -> Task:
    task = bug_task(budget=case.budget)
    return replace(task, workspace=replace(task.workspace, limits=case.limits))


def scripted(case: Case) -> Policy:
    return ScriptedPolicy([Message(role="assistant", tool_calls=(call,)) for call in case.calls])


@pytest.mark.parametrize("name", CASES)
def test_the_episode_ends_as_its_rule_says(rows: dict[str, Trajectory], name: str) -> None:
    row, case = rows[name], CASES[name]
    assert (row.status, row.outcome) == (case.status, case.outcome), (row.error, row.verdict)


def test_who_worked_beside_them_passed_and_nothing_is_left(rows: dict[str, Trajectory]) -> None:
    assert [rows[f"neighbour {n}"].outcome for n in range(NEIGHBOURS)] == ["pass"] * NEIGHBOURS
    assert leftovers(RUN_ID) == []
