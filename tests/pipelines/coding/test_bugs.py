"""Tasks made from two tiny packages: every one fails as it stands and passes when repaired."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollmill.pipelines.coding import FAMILIES, Bugs
from rollmill.pipelines.coding.codebase import Codebase
from rollmill.pipelines.coding.issue import write_issue
from rollmill.pipelines.family import Proposal, Rejected, SourceError
from rollmill.pipelines.rollout.edit import replace_at
from rollmill.pipelines.task import Task
from rollmill.verifiers import Verdict
from rollmill.verifiers.pytest_run import Failure
from rollmill.verifiers.test_suite import TestSuiteVerifier
from rollmill.workspaces import Artifact, DockerProvider, lay, opened, unpack_tree

from ..rollout.test_episode import FailingProvider
from .packages import SHOP, WORDS, write_package

docker = pytest.mark.docker


@pytest.fixture
async def provider() -> AsyncIterator[DockerProvider]:
    provider = DockerProvider()
    yield provider
    await provider.close()


def proposal(source: Codebase, kind: str, piece: str) -> Proposal:
    """The proposal of a kind in a line that contains a piece of code."""
    for found in Bugs().propose(source, seed=0):
        mutation = source.mutations[found.key]
        if mutation.kind == kind and piece in mutation.before:
            return found
    raise AssertionError(f"no {kind} in {piece!r}")


async def judged(task: Task, provider: DockerProvider, *, repaired: bool) -> Verdict:
    async with opened(provider, task.workspace) as workspace:
        if repaired:
            edit = dict(task.solution[3].calls[0].arguments)
            path = edit.pop("path")
            text = unpack_tree(task.workspace.seed)[path].decode()
            fixed, _ = replace_at(text, **edit)
            await lay(workspace, Artifact(files={path: fixed.encode()}))
        return await TestSuiteVerifier().verify(workspace, task.verifier, task.hidden)


@docker
async def test_examination_learns_which_tests_run_which_line(
    tmp_path: Path, provider: DockerProvider
) -> None:
    folder = str(write_package(tmp_path / "shop", SHOP))
    source = await Bugs().prepare(folder, provider, tmp_path)
    assert len(source.tests) == 8
    assert source.dropped == {"tests/test_price.py::test_later": "skipped"}
    discount = next(m for m in source.mutations.values() if "(100 - discount)" in m.before)
    assert source.tests_of(discount) == [
        "tests/test_price.py::test_total_takes_the_discount_off",
        "tests/test_price.py::test_total_can_stay_exact",
    ]
    (kept,) = (tmp_path / "coding").glob("*.json")
    learnt = json.loads(kept.read_text())
    learnt["dropped"] = {"from": "the cache"}
    kept.write_text(json.dumps(learnt))
    assert (await Bugs().prepare(folder, provider, tmp_path)).dropped == {"from": "the cache"}


@docker
@pytest.mark.parametrize("package", [SHOP, WORDS], ids=["shop", "words"])
async def test_tasks_fail_as_they_stand_and_pass_when_repaired(
    tmp_path: Path, provider: DockerProvider, package: dict[str, str]
) -> None:
    family = FAMILIES["bugs"]()
    source = await family.prepare(str(write_package(tmp_path / "pkg", package)), provider, tmp_path)
    proposals = list(family.propose(source, seed=5))
    assert proposals == list(family.propose(source, seed=5))
    assert len({p.key for p in proposals}) == len(proposals) == len(source.mutations)
    built = 0
    for idea in proposals:
        try:
            task = await family.build(source, idea, provider)
        except Rejected:
            continue
        built += 1
        mutation = source.mutations[idea.key]
        assert mutation.before.strip() not in task.instruction
        assert mutation.after.strip() not in task.instruction
        assert mutation.path not in task.instruction
        assert len(task.instruction.split()) <= 120
        assert not set(task.hidden) & set(source.layout.modules())
        null = await judged(task, provider, repaired=False)
        gold = await judged(task, provider, repaired=True)
        assert (null.outcome, gold.outcome) == ("fail", "pass")
        if built == 2:
            break
    assert built == 2


@docker
async def test_building_twice_gives_the_same_task(tmp_path: Path, provider: DockerProvider) -> None:
    family = Bugs()
    source = await family.prepare(str(write_package(tmp_path / "w", WORDS)), provider, tmp_path)
    idea = proposal(source, "sibling_call", "upper")
    first, second = [await family.build(source, idea, provider) for _ in range(2)]
    assert first.task_id == second.task_id


@docker
async def test_ideas_that_do_not_hold_are_rejected_by_reason(
    tmp_path: Path, provider: DockerProvider
) -> None:
    family = Bugs()
    source = await family.prepare(str(write_package(tmp_path / "shop", SHOP)), provider, tmp_path)
    hanging = proposal(source, "arithmetic", "start -= 1")
    unseen = proposal(source, "default_value", "def total")
    for idea, reason in [(hanging, "hangs"), (unseen, "no_failing_test")]:
        with pytest.raises(Rejected) as rejected:
            await family.build(source, idea, provider)
        assert rejected.value.reason == reason


@docker
@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ("def test_a():\n    assert 1 == 2\n", r"fails 1 .*test_price\.py::test_a.*1 == 2"),
        ("import nowhere\n", r"(?s)fails 1 .*tests/test_price\.py.*nowhere"),
        ("x = 1\n", "collected none"),
        ("import os\nos._exit(0)\n", "no_report"),
    ],
)
async def test_a_source_whose_tests_do_not_pass_unmutated_says_which(
    tmp_path: Path, provider: DockerProvider, tests: str, says: str
) -> None:
    folder = write_package(tmp_path / "shop", SHOP | {"tests/test_price.py": tests})
    with pytest.raises(SourceError, match=says) as refusal:
        await Bugs().prepare(str(folder), provider, tmp_path)
    assert not list((tmp_path / "coding").glob("*")) if (tmp_path / "coding").exists() else True
    assert "source" in str(refusal.value)


@docker
async def test_a_test_that_fails_once_costs_itself_and_not_the_source(
    tmp_path: Path, provider: DockerProvider
) -> None:
    moody = "\n\ndef test_moody():\n    import os\n    assert 'SPOILED' not in os.environ\n"
    tests = SHOP["tests/test_price.py"] + moody
    folder = write_package(tmp_path / "shop", SHOP | {"tests/test_price.py": tests})
    once = FailingProvider(provider, spoiled={1})

    source = await Bugs().prepare(str(folder), once, tmp_path)

    assert source.dropped["tests/test_price.py::test_moody"] == "flaky"
    assert len(source.tests) == 8
    twice = FailingProvider(provider, spoiled={1, 2})
    with pytest.raises(SourceError, match=r"fails 1 of .* unmutated.*test_moody"):
        await Bugs().prepare(str(folder), twice, tmp_path / "another")


def test_an_issue_varies_by_seed_and_stays_short() -> None:
    failure = Failure(
        test="tests/t.py::test_a",
        message="AssertionError: " + "x " * 3000,
        statement="assert f(\n" + "    1,\n" * 50 + ")",
        phase="call",
    )
    issues = {write_issue(package="p", failure=failure, others=3, seed=s) for s in range(40)}
    assert len(issues) > 10
    assert all(len(issue) < 1200 and "tests/t.py::test_a" in issue for issue in issues)
