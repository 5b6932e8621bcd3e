from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollmill.model import ToolCall
from rollmill.pipelines.admission import AdmissionError, admit
from rollmill.pipelines.task import Budget, Move, Task
from rollmill.workspaces import Provider, open_provider

from .rollout.handmade import FIX, bash, bug_task
from .rollout.test_episode import FailingProvider

pytestmark = pytest.mark.docker


@pytest.fixture
async def docker() -> AsyncIterator[Provider]:
    provider = open_provider("docker")
    yield provider
    await provider.close()


def solved_by(*calls: ToolCall, budget: Budget | None = None) -> Task:
    moves = tuple(Move(thought="so", calls=(call,)) for call in calls)
    return bug_task(solution=moves, budget=budget)


async def test_a_sound_task_is_admitted_with_its_evidence(docker: Provider) -> None:
    task = bug_task()
    admission = await admit(task, docker)
    assert (admission.admitted, admission.reason) == (True, "admitted")
    assert [verdict.outcome for verdict in admission.gold] == ["pass", "pass"]
    assert admission.null.outcome == "fail"
    assert admission.task_id == task.task_id
    assert admission.wall_s > 0
    assert admission.task_bytes > len(task.workspace.seed)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (bug_task(fail_to_pass=("test_calc.py::test_one",)), "null_passes"),
        (solved_by(bash("true")), "gold_fails"),
        (solved_by(ToolCall(name="fly")), "gold_fails"),
        (solved_by(FIX, bash("true"), budget=Budget(max_turns=2)), "gold_unfinished"),
    ],
    ids=["null_passes", "gold_fails", "gold_malformed", "gold_unfinished"],
)
async def test_a_task_without_evidence_is_rejected_by_the_first_failure(
    docker: Provider, task: Task, reason: str
) -> None:
    admission = await admit(task, docker)
    assert (admission.admitted, admission.reason) == (False, reason)
    assert len(admission.gold) == (0 if reason == "null_passes" else 1)


async def test_a_gold_solution_that_passes_only_sometimes_is_flaky(docker: Provider) -> None:
    provider = FailingProvider(docker, spoiled={5})  # the workspace of the second gold run
    fix = bash("test -n \"$SPOILED\" || sed -i 's/a > b/a < b/' calc.py")
    admission = await admit(solved_by(fix), provider)
    assert (admission.admitted, admission.reason) == (False, "gold_flaky")
    assert [verdict.outcome for verdict in admission.gold] == ["pass", "fail"]


@pytest.mark.parametrize("broken", [{1, 2}, {2, 3}, {3, 4}])
async def test_a_breakdown_of_the_machinery_says_nothing_about_the_task(
    docker: Provider, broken: set[int]
) -> None:
    provider = FailingProvider(docker, failing=broken)
    with pytest.raises(AdmissionError, match="the engine lost it; run it again"):
        await admit(bug_task(), provider)
