from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rollmill.model import ToolCall
from rollmill.pipelines.admission import AdmissionError, Plan, admit
from rollmill.pipelines.task import Budget, Move, Task
from rollmill.workspaces import Provider, open_provider

from .rollout.handmade import FIX, TESTS, bash, bug_task
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


BARE = Plan(runs=2, cheats=0, mutants=0, alternatives=False)
"""Gold and null alone."""


async def test_a_sound_task_is_admitted_with_its_evidence(docker: Provider) -> None:
    task = bug_task()
    admission = await admit(task, docker, plan=Plan(runs=2, cheats=2, at_once=4))
    assert (admission.admitted, admission.reason) == (True, "admitted")
    assert [verdict.outcome for verdict in admission.gold] == ["pass"] * 2
    assert [verdict.outcome for verdict in admission.null] == ["fail"] * 2
    assert [tried.outcome for tried in admission.cheats] == ["fail"] * 2
    assert {tried.outcome for tried in admission.alternatives} == {"pass"}
    assert len(admission.alternatives) == 3
    assert 1 < admission.killed == admission.mutants - len(admission.survivors)
    assert any("a <= b" in survivor for survivor in admission.survivors)  # it is no fault
    assert admission.verifier_strength == admission.killed / admission.mutants
    assert (admission.dropped, admission.flakes) == ((), {})
    assert (admission.task, admission.task_id) == (task, task.task_id)
    assert admission.task_bytes > len(task.workspace.seed)
    assert [*admission.step_s] == [
        *("null", "gold", "cheats", "repeats", "alternatives", "mutants")
    ]
    evidence = json.loads(json.dumps(admission.evidence()))
    assert evidence["verifier_strength"] == admission.verifier_strength
    assert evidence["survivors"] == list(admission.survivors)
    assert evidence["gold"][0]["checks"]


async def test_a_task_that_pays_cheats_is_rejected_by_their_names(docker: Provider) -> None:
    lax = b"def test_low():\n    with open('calc.py') as file:\n        text = file.read()\n"
    lax += b"    assert 'a < b' in text or len(text) > 100\n\n\ndef test_one():\n    pass\n"
    admission = await admit(bug_task(tests=lax), docker, plan=replace(BARE, cheats=6, at_once=4))
    assert (admission.admitted, admission.reason) == (False, "cheat_pays")
    paid = [tried.name for tried in admission.cheats if tried.outcome == "pass"]
    assert admission.detail == ", ".join(paid)
    assert len(admission.gold) == 1


async def test_an_alternative_that_fails_rejects_the_task(docker: Provider) -> None:
    picky = b"def test_low():\n    assert '\\n\\n\\n' in open('calc.py', newline='').read()\n"
    picky += b"    assert 'a < b' in open('calc.py').read()\n\n\ndef test_one():\n    pass\n"
    task = bug_task(tests=picky)
    admission = await admit(task, docker, plan=replace(BARE, alternatives=True))
    assert (admission.admitted, admission.reason) == (False, "alternative_refused")
    assert "CRLF" in admission.detail


@pytest.mark.parametrize("spoiled", [4, 8], ids=["in the first gold run", "in the second"])
async def test_a_flaky_test_is_dropped_and_the_task_kept(docker: Provider, spoiled: int) -> None:
    provider = FailingProvider(docker, spoiled={spoiled})  # where that gold run is judged
    flaky = TESTS + (
        b"\n\ndef test_moody():\n    import os\n    assert 'SPOILED' not in os.environ\n"
    )
    task = bug_task(
        tests=flaky, pass_to_pass=("test_calc.py::test_one", "test_calc.py::test_moody")
    )
    admission = await admit(task, provider, plan=BARE)
    assert (admission.admitted, admission.dropped) == (True, ("test_calc.py::test_moody",))
    runs = len(admission.gold)
    assert admission.flakes["test_calc.py::test_moody"] == (runs - 1, runs)
    assert admission.task.verifier.params["pass_to_pass"] == ["test_calc.py::test_one"]
    assert admission.task_id == admission.task.task_id != task.task_id


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
    admission = await admit(task, docker, plan=BARE)
    assert (admission.admitted, admission.reason) == (False, reason)
    assert len(admission.gold) == (0 if reason == "null_passes" else 1)


async def test_a_gold_solution_that_passes_only_sometimes_is_flaky(docker: Provider) -> None:
    provider = FailingProvider(docker, spoiled={7})  # the workspace of the second gold run
    fix = bash("test -n \"$SPOILED\" || sed -i 's/a > b/a < b/' calc.py")
    admission = await admit(solved_by(fix), provider, plan=BARE)
    assert (admission.admitted, admission.reason) == (False, "gold_flaky")
    assert [verdict.outcome for verdict in admission.gold] == ["pass", "fail"]


@pytest.mark.parametrize("broken", [{1, 2}, {2, 3}, {3, 4}])
async def test_a_breakdown_of_the_machinery_says_nothing_about_the_task(
    docker: Provider, broken: set[int]
) -> None:
    provider = FailingProvider(docker, failing=broken)
    with pytest.raises(AdmissionError, match="the engine lost it; run it again"):
        await admit(bug_task(), provider, plan=BARE)
