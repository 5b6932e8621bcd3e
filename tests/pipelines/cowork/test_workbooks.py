"""Tasks from a table: the same every time, solvable as stated, and not by anything less."""

import io
import json
from itertools import islice
from typing import Any

import openpyxl
import pytest

from rollmill.pipelines.cowork import FAMILIES
from rollmill.pipelines.cowork.mutants import workbook_mutants
from rollmill.pipelines.cowork.templates import TEMPLATES
from rollmill.pipelines.cowork.workbooks import LoadedTable, Workbooks
from rollmill.pipelines.family import Proposal, SourceError
from rollmill.pipelines.task import Task
from rollmill.verifiers import Verdict, VerifierSpec, get_verifier
from rollmill.workspaces import (
    DockerProvider,
    ScriptedProvider,
    Workspace,
    WorkspaceSpec,
    opened,
    pack_tree,
    unpack_tree,
)

NOWHERE = ScriptedProvider([])
"""Building needs no workspace; this one has none to give."""


async def tasks(family: Workbooks, shops: LoadedTable, each: int) -> list[Task]:
    """`each` tasks of every template."""
    proposals = list(islice(family.propose(shops, seed=3), each * len(TEMPLATES)))
    return [await family.build(shops, proposal, NOWHERE) for proposal in proposals]


def test_the_family_is_registered() -> None:
    assert {"workbooks": Workbooks} == FAMILIES


async def test_the_same_seed_gives_the_same_tasks_and_another_gives_others(
    family: Workbooks, shops: LoadedTable
) -> None:
    def keys(seed: int) -> list[str]:
        return [proposal.key for proposal in islice(family.propose(shops, seed=seed), 40)]

    assert keys(3) == keys(3)
    assert set(keys(3)).isdisjoint(keys(4))
    first, again = await tasks(family, shops, 4), await tasks(family, shops, 4)
    assert [task.task_id for task in first] == [task.task_id for task in again]
    assert len({task.task_id for task in first}) == len(first)


async def test_every_template_takes_part_and_words_its_task_in_few_words(
    family: Workbooks, shops: LoadedTable
) -> None:
    made = await tasks(family, shops, 12)
    by_template: dict[str, list[Task]] = {}
    for task in made:
        by_template.setdefault(task.provenance.detail["template"], []).append(task)
    assert set(by_template) == set(TEMPLATES)
    for template, several in by_template.items():
        assert len({task.instruction for task in several}) > 6, template
    for task in made:
        assert len(task.instruction.split()) <= 120
        assert "{" not in task.instruction
        assert task.verifier.params["path"] in task.instruction
        assert task.artifacts == (task.verifier.params["path"],)
        assert all(len(str(call.arguments)) < 1200 for m in task.solution for call in m.calls)


async def test_whoever_must_write_formulas_is_judged_on_other_inputs_too(
    family: Workbooks, shops: LoadedTable
) -> None:
    found = set()
    for task in await tasks(family, shops, 24):
        expected = json.loads(task.hidden["expected.json"])
        live = any(region.get("formula") for region in expected.get("regions", ()))
        assert not live or expected["variants"], task.instruction
        found.add(live)
    assert found == {True, False}


async def test_an_unknown_table_lists_the_choices(family: Workbooks, shops: LoadedTable) -> None:
    with pytest.raises(SourceError, match="unknown table 'shop'; choose one of: shops"):
        await family.prepare("shop", NOWHERE, None)  # type: ignore[arg-type]


async def test_a_table_without_the_columns_gets_no_such_task(
    family: Workbooks, shops: LoadedTable
) -> None:
    bare = tuple(c for c in shops.table.columns if c.kind in ("number", "date"))
    poorer = LoadedTable(table=shops.table.model_copy(update={"columns": bare}), rows=shops.rows)
    proposals = islice(family.propose(poorer, seed=1), 20)
    assert {proposal.key.split("/")[1] for proposal in proposals} == {"periods", "column"}


@pytest.mark.office
async def test_gold_passes_and_neither_nothing_nor_one_wrong_cell_does(
    family: Workbooks, shops: LoadedTable, provider: DockerProvider
) -> None:
    made = await tasks(family, shops, 1)
    seed = {
        f"{at}/{path}": data
        for at, task in enumerate(made)
        for path, data in unpack_tree(task.workspace.seed).items()
    }
    spec = WorkspaceSpec(image="office", seed=pack_tree(seed))
    async with opened(provider, spec) as workspace:
        for at, task in enumerate(made):
            told = f"{task.provenance.detail}: {task.instruction}"
            assert (await judged(workspace, task, at)).outcome == "fail", told
            for move in task.solution:
                ran = await workspace.exec(
                    ["bash", "-c", move.calls[0].arguments["command"]], cwd=str(at)
                )
                assert ran.exit_code == 0, f"{told}\n{ran.stderr}"
                assert len(ran.stdout) < 2000, told
            verdict = await judged(workspace, task, at)
            assert verdict.outcome == "pass", f"{told}\n{verdict.checks}"
            gold = await handed_in(workspace, task, at)
            await spoil(workspace, task, at, inside=at % 2 == 0)
            assert (await judged(workspace, task, at)).outcome == "fail", told
            if task.verifier.name == "workbook":
                expected = json.loads(task.hidden["expected.json"])
                for name, mutant in list(workbook_mutants(gold, expected))[at % 3 :: 3]:
                    await workspace.put(f"{at}/{task.verifier.params['path']}", mutant)
                    outcome = (await judged(workspace, task, at)).outcome
                    assert outcome == "fail", f"{name}: {told}"


async def handed_in(workspace: Workspace, task: Task, at: int) -> bytes:
    path = f"{at}/{task.verifier.params['path']}"
    return await workspace.get(path, max_bytes=1 << 20)


async def judged(workspace: Workspace, task: Task, at: int) -> Verdict:
    path = f"{at}/{task.verifier.params['path']}"
    spec = VerifierSpec(name=task.verifier.name, params={"path": path})
    return await get_verifier(spec.name).verify(workspace, spec, task.hidden)


async def spoil(workspace: Workspace, task: Task, at: int, *, inside: bool) -> None:
    """Change one cell, inside or outside of what was asked for, or one value of an answer."""
    path = f"{at}/{task.verifier.params['path']}"
    data = await workspace.get(path, max_bytes=1 << 20)
    if task.verifier.name == "answer":
        answer: dict[str, Any] = json.loads(data)
        answer[list(answer)[-1]] *= 1.02
        await workspace.put(path, json.dumps(answer).encode())
        return
    book = openpyxl.load_workbook(io.BytesIO(data))
    region = json.loads(task.hidden["expected.json"])["regions"][-1]
    sheet = book[region["sheet"]]
    cell = sheet[region["top_left"]] if inside else sheet.cell(sheet.max_row + 3, 1)
    cell.value = 987654
    buffer = io.BytesIO()
    book.save(buffer)
    await workspace.put(path, buffer.getvalue())


def test_a_key_names_its_template(family: Workbooks, shops: LoadedTable) -> None:
    proposal = next(iter(family.propose(shops, seed=1)))
    assert isinstance(proposal, Proposal)
    assert proposal.key.split("/")[1] in TEMPLATES
