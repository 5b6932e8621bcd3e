"""Stored artifacts are judged again; the run that holds them stays as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollmill.pipelines.dataset.errors import RunError
from rollmill.pipelines.dataset.manifest import read_manifest
from rollmill.pipelines.dataset.store import Run, read_run, read_tasks
from rollmill.pipelines.reverify import reverify, save_reverified, summary
from rollmill.pipelines.rollout.authored import ScriptedPolicy, gold_policy, null_policy
from rollmill.pipelines.rollout.episode import run_episode
from rollmill.pipelines.rollout.policy import PolicyError
from rollmill.pipelines.trajectory import Trajectory
from rollmill.verifiers import Check, Verdict
from rollmill.workspaces import Provider, ScriptedProvider, open_provider

from .rollout.handmade import bug_task

OLD = Verdict(
    outcome="pass",
    score=1.0,
    checks=(Check(name="t", outcome="pass"),),
    verifier="test_suite@0",
)


@pytest.fixture
async def docker() -> AsyncIterator[Provider]:
    provider = open_provider("docker")
    yield provider
    await provider.close()


def stored(path: Path, rows: list[Trajectory]) -> Path:
    with Run.open(path, {"seed": 0}) as run:
        run.save_task(bug_task(), {})
        run.write_shard(0, rows)
        run.finish()
    return path


async def unscored() -> Trajectory:
    """An episode whose policy failed; nothing ran."""
    policy = ScriptedPolicy([PolicyError("down")])
    return await run_episode(bug_task(), policy, ScriptedProvider(), run_id="r", attempt=0, seed=0)


@pytest.mark.docker
async def test_a_verdict_that_no_longer_holds_is_changed_in_a_run_of_its_own(
    tmp_path: Path, docker: Provider
) -> None:
    gold, null = [
        await run_episode(bug_task(), policy, docker, run_id="r", attempt=0, seed=0)
        for policy in (gold_policy(), null_policy())
    ]
    parts = {"outcome": 1.0, "repeat@0": -1.0}
    fooled = replace(null, verdict=OLD, reward=1.0, reward_parts=parts)
    lost = replace(gold, verdict=None, status="verifier_error", reward=None, reward_parts={})
    run = stored(tmp_path / "run", [fooled, lost])
    before = read_manifest(run)

    changes = [change async for change in reverify(run, docker)]
    assert summary(changes) == {"pass -> fail": 1, "unscored -> pass": 1}
    assert all(change.differs for change in changes)
    told = "\n".join(map(str, changes))
    assert "pass 1.00 (test_suite@0) -> fail" in told
    assert "test_low" in told

    save_reverified(changes, run, tmp_path / "again")
    now = {row.policy: row for row in read_run(tmp_path / "again")}
    assert now["null"].reward == 0.0
    assert now["null"].reward_parts == {"outcome": 0.0, "repeat@0": -1.0}
    assert (now["gold"].status, now["gold"].reward) == ("submitted", 1.0)
    assert read_tasks(tmp_path / "again") == read_tasks(run)
    assert read_manifest(run) == before
    assert {row.verdict for row in read_run(run)} == {OLD, None}
    again = [change async for change in reverify(tmp_path / "again", docker)]
    assert not any(change.differs for change in again)


async def test_what_was_refused_or_never_scored_is_left_alone(tmp_path: Path) -> None:
    refused = replace(OLD, outcome="fail", score=0.0, verifier="artifact@1")
    row = await unscored()
    kept = replace(row, status="submitted", verdict=refused, reward=0.0, error="")
    broken = replace(row, attempt=1, episode_id="b", status="workspace_error", verdict=None)
    broken = replace(broken, reward=None, reward_parts={})
    run = stored(tmp_path / "run", [kept, broken])
    changes = [change async for change in reverify(run, ScriptedProvider())]
    assert [change.differs for change in changes] == [False, False]


async def test_an_episode_without_its_task_says_what_is_missing(tmp_path: Path) -> None:
    row = await unscored()
    run = stored(tmp_path / "run", [replace(row, task_id="gone")])
    with pytest.raises(RunError, match="no such task folder"):
        assert [change async for change in reverify(run, ScriptedProvider())]
