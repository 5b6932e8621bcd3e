"""Tasks of a rubric: judges are used only once gold and null went through them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollmill.pipelines.admission import Plan, admit
from rollmill.pipelines.dataset.store import Run
from rollmill.pipelines.reverify import reverify, summary
from rollmill.pipelines.rollout.authored import AuthoredPolicy, gold_policy
from rollmill.pipelines.rollout.episode import attempt_episode
from rollmill.pipelines.task import Move, Task
from rollmill.verifiers import VerifierSpec
from rollmill.workspaces import Provider, WorkspaceSpec, open_provider, pack_tree

from ..judges import policy as judge_policy
from ..judges import reader
from .rollout.handmade import bash, bug_task

pytestmark = pytest.mark.docker

RISK, DATE = "It names rising prices.", "It is dated."
GOLD = "printf 'Oslo, 3 May 2024\\n\\nPrices may rise.\\n' > memo.md"
HONEST = reader({RISK: "Prices may rise", DATE: "3 May 2024"})
READER = judge_policy(HONEST)
PLAN = Plan(runs=2, cheats=4, at_once=4)


@pytest.fixture
async def docker() -> AsyncIterator[Provider]:
    provider = open_provider("docker")
    yield provider
    await provider.close()


def memo_task() -> Task:
    rubric = {"criteria": [{"name": "risk", "text": RISK}, {"name": "date", "text": DATE}]}
    return replace(
        bug_task(solution=(Move(thought="so", calls=(bash(GOLD),)),), artifacts=("memo.md",)),
        domain="cowork",
        instruction="Write a dated memo on the risks to memo.md.",
        workspace=WorkspaceSpec(image="python", seed=pack_tree({"memo.md": b"To be written.\n"})),
        verifier=VerifierSpec(name="rubric", params={"path": "memo.md"}),
        hidden={"rubric.json": json.dumps(rubric).encode()},
    )


async def test_an_honest_judge_admits_the_task_and_its_agreement_is_kept(docker: Provider) -> None:
    admission = await admit(memo_task(), docker, plan=PLAN, judges=[READER])
    assert (admission.admitted, admission.reason) == (True, "admitted"), admission.detail
    assert admission.agreement == {"gold": (4, 4), "null": (4, 4)}
    assert {tried.outcome for tried in admission.cheats} == {"fail"}
    evidence = json.loads(json.dumps(admission.evidence()))
    assert evidence["agreement"] == {"gold": [4, 4], "null": [4, 4]}


@pytest.mark.parametrize(
    ("judges", "reason"),
    [
        ([], "null_unscored"),
        ([judge_policy(lambda *_: (True, ["To be written", "Prices may rise"]))], "null_unscored"),
        ([judge_policy(lambda text, work, _: (len(text) < 30, [work[:14]]))], "null_passes"),
        ([judge_policy(lambda *_: (False, []))], "gold_fails"),
    ],
    ids=["nobody", "yes to all", "yes to each", "no to all"],
)
async def test_a_judge_who_cannot_tell_gold_from_nothing_is_not_used(
    docker: Provider, judges: list[AuthoredPolicy], reason: str, tmp_path: Path
) -> None:
    admission = await admit(memo_task(), docker, plan=PLAN, judges=judges)
    assert (admission.admitted, admission.reason) == (False, reason)
    if reason != "gold_fails":
        return
    rows = await attempt_episode(
        memo_task(),
        gold_policy(),
        docker,
        run_id="r",
        attempt=0,
        seed=0,
        judges=[READER],
    )
    assert rows[-1].outcome == "pass"
    with Run.open(tmp_path / "run", {"seed": 0}) as run:
        run.save_task(memo_task(), {})
        run.write_shard(0, rows)
        run.finish()
    changes = [each async for each in reverify(tmp_path / "run", docker, judges=judges)]
    assert summary(changes) == {"pass -> unscored": 1}
    assert "gold_fails" in str(changes[0])
    again = [each async for each in reverify(tmp_path / "run", docker, judges=[READER])]
    assert summary(again) == {"pass -> pass": 1}
