"""The admission gate: a task is kept only on evidence that its verifier tells right from wrong.

Doing nothing must fail and the gold solution must pass every time. Cheats and near misses are not
tried here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ..verifiers import Verdict
from ..workspaces import Provider, WorkspaceError
from .rollout.authored import gold_policy, null_policy
from .rollout.episode import attempt_episode
from .rollout.policy import Policy
from .task import Task
from .trajectory import Trajectory

Reason = Literal[
    "admitted",
    "null_passes",
    "null_unscored",
    "gold_fails",
    "gold_unscored",
    "gold_unfinished",
    "gold_flaky",
]


class AdmissionError(WorkspaceError):
    """The machinery failed while a task was probed; says nothing about the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Whether a task may be used, and what was seen."""

    task_id: str
    admitted: bool
    reason: Reason
    null: Verdict
    gold: tuple[Verdict, ...]
    """One verdict a run, up to the first that did not pass."""
    wall_s: float
    task_bytes: int
    """Seed and hidden assets, which every copy of the task carries."""


async def admit(task: Task, provider: Provider, *, runs: int = 2) -> Admission:
    """Probe a task: once doing nothing, then `runs` times the gold solution.

    The null probe costs least and rejects most, so it comes first; the first failure decides.

    Raises:
        AdmissionError: a probe broke in our machinery.
    """
    began = time.monotonic()
    null = await _probe(task, null_policy(), provider, attempt=0)
    verdicts: list[Verdict] = []
    reason: Reason = _null_reason(null)
    while reason == "admitted" and len(verdicts) < runs:
        gold = await _probe(task, gold_policy(), provider, attempt=len(verdicts))
        reason = _gold_reason(gold, passed_before=bool(verdicts))
        verdicts.append(_verdict(gold))
    return Admission(
        task_id=task.task_id,
        admitted=reason == "admitted",
        reason=reason,
        null=_verdict(null),
        gold=tuple(verdicts),
        wall_s=time.monotonic() - began,
        task_bytes=len(task.workspace.seed) + sum(map(len, task.hidden.values())),
    )


async def _probe(task: Task, policy: Policy, provider: Provider, *, attempt: int) -> Trajectory:
    tries = await attempt_episode(
        task, policy, provider, run_id="admission", attempt=attempt, seed=attempt, retries=1
    )
    row = tries[-1]
    if row.verdict is None:
        raise AdmissionError(
            f"admission of task {task.task_id} ({task.family}) broke with the {policy.name} "
            f"policy, {row.error}; run it again"
        )
    return row


def _null_reason(null: Trajectory) -> Reason:
    reasons: dict[str, Reason] = {"pass": "null_passes", "unscored": "null_unscored"}
    return reasons.get(null.outcome, "admitted")


def _gold_reason(gold: Trajectory, *, passed_before: bool) -> Reason:
    if gold.outcome == "pass":
        return "admitted" if gold.status == "submitted" else "gold_unfinished"
    if passed_before:
        return "gold_flaky"
    return "gold_unscored" if gold.outcome == "unscored" else "gold_fails"


def _verdict(row: Trajectory) -> Verdict:
    assert row.verdict is not None, "_probe() raised for those without"
    return row.verdict
