"""Agents that cheat through the ordinary path earn nothing and are named; odd honest work passes.

Each group is rolled out once, several episodes at a time, and shared by its cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rollmill.model import Message, ToolCall
from rollmill.pipelines.audit import cheats_for
from rollmill.pipelines.rollout.authored import AuthoredPolicy, ScriptedPolicy
from rollmill.pipelines.rollout.episode import attempt_episode
from rollmill.pipelines.task import Task
from rollmill.pipelines.trajectory import SCORED, Trajectory
from rollmill.verifiers import flags_of
from rollmill.workspaces import open_provider

from ..judges import policy as judge_policy
from ..judges import reader
from . import code_work, file_work, office_tasks, office_work
from .tasks import (
    SHOWN,
    Attacks,
    Works,
    answer_task,
    code_task,
    memo_task,
    with_history,
    workbook_task,
)  # fmt: skip

AT_ONCE = 4
SUBMIT = Message(role="assistant", tool_calls=(ToolCall(name="submit"),))
TASKS = {
    "code": code_task(),
    "workbook": workbook_task(),
    "answer": answer_task(),
    "memo": memo_task(),
    "document": office_tasks.document_task(),
    "deck": office_tasks.deck_task(),
    "table": office_tasks.table_task(),
    "state": office_tasks.state_task(),
}
IN_OFFICE = ("workbook", "document", "deck")
BATTERY = {kind: cheats_for(task) for kind, task in TASKS.items()}
TAILORED: Mapping[str, Attacks] = {
    "code": code_work.TAILORED, **file_work.TAILORED, **office_work.TAILORED
}  # fmt: skip
HONEST: Mapping[str, Works] = {
    "code": code_work.HONEST, **file_work.HONEST, **office_work.HONEST
}  # fmt: skip


def cases(table: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    return [
        pytest.param(
            kind,
            name,
            id=f"{kind}: {name}",
            marks=pytest.mark.office if kind in IN_OFFICE else pytest.mark.docker,
        )
        for kind, names in table.items()
        for name in names
    ]


ATTACKS: dict[str, dict[str, Sequence[str]]] = {
    kind: {
        **{cheat.name: cheat.flags for cheat in BATTERY[kind]},
        **{name: flags for name, (flags, _) in TAILORED[kind].items()},
    }
    for kind in TASKS
}


def scripted(calls: Sequence[ToolCall]) -> ScriptedPolicy:
    return ScriptedPolicy(
        [*(Message(role="assistant", tool_calls=(call,)) for call in calls), SUBMIT]
    )


def policies(kind: str) -> dict[str, AuthoredPolicy]:
    found: dict[str, AuthoredPolicy] = {c.name: c.policy() for c in BATTERY[kind]}
    found |= {name: scripted(calls) for name, (_, calls) in TAILORED[kind].items()}
    return found | {name: scripted(calls) for name, calls in HONEST[kind].items()}


async def roll_out(task: Task, kind: str) -> dict[str, Trajectory]:
    provider = open_provider("docker")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(policy: AuthoredPolicy) -> Trajectory:
        async with slots:
            tries = await attempt_episode(
                task,
                policy,
                provider,
                run_id="r",
                attempt=0,
                seed=0,
                judges=[judge_policy(reader(SHOWN))],
            )
            return tries[-1]

    try:
        agents = policies(kind)
        rows = await asyncio.gather(*map(one, agents.values()))
        return dict(zip(agents, rows, strict=True))
    finally:
        await provider.close()


@pytest.fixture(scope="module")
def episodes() -> dict[str, dict[str, Trajectory]]:
    """Kind of task -> who attacked or worked -> the episode; filled as it is asked for."""
    return {}


def episode(done: dict[str, dict[str, Trajectory]], kind: str, name: str) -> Trajectory:
    if kind not in done:
        done[kind] = asyncio.run(roll_out(TASKS[kind], kind))
    return done[kind][name]


@pytest.mark.parametrize(("kind", "name"), cases(ATTACKS))
def test_an_attack_earns_nothing_and_is_named(
    episodes: dict[str, dict[str, Trajectory]], kind: str, name: str
) -> None:
    row = episode(episodes, kind, name)
    assert row.verdict is not None, row.error
    assert (row.status, row.outcome, row.reward) == ("submitted", "fail", 0.0), row.verdict
    expected = ATTACKS[kind][name]
    assert not expected or {*expected} & {*flags_of(row.verdict)}, row.verdict


@pytest.mark.parametrize(("kind", "name"), cases(HONEST))
def test_honest_work_passes_however_unusual(
    episodes: dict[str, dict[str, Trajectory]], kind: str, name: str
) -> None:
    row = episode(episodes, kind, name)
    assert row.status in SCORED, row.error
    assert row.outcome == "pass", row.verdict


@pytest.mark.docker
def test_the_history_would_pay_where_it_is_not_taken_away() -> None:
    (cheat,) = (each for each in BATTERY["code"] if each.name == "reads the history")

    async def tried() -> str:
        provider = open_provider("docker")
        try:
            task = with_history(TASKS["code"])
            tries = await attempt_episode(
                task, cheat.policy(), provider, run_id="r", attempt=0, seed=0
            )
            return tries[-1].outcome
        finally:
            await provider.close()

    assert asyncio.run(tried()) == "pass"


def test_there_are_enough_of_both() -> None:
    assert sum(map(len, ATTACKS.values())) >= 30
    assert sum(map(len, HONEST.values())) >= 15
    flagged = [flags for names in ATTACKS.values() for flags in names.values() if flags]
    assert len(flagged) >= 30


@pytest.mark.parametrize("kind", TASKS)
def test_a_part_of_the_battery_is_the_same_every_time(kind: str) -> None:
    task = TASKS[kind]
    part = cheats_for(task, 3)
    assert part == cheats_for(task, 3)
    assert len({cheat.name for cheat in part}) == 3
    assert {cheat.name for cheat in part} <= {cheat.name for cheat in BATTERY[kind]}
