"""The admission gate: a task is kept only on evidence that its verifier tells right from wrong.

Doing nothing must fail and the gold solution pass every time; cheats must earn nothing; the gold
solution written differently must pass. How many near misses fail is measured, not demanded.
Cheap and decisive probes come first. Whether a policy can solve a task is not asked here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

from ..verifiers import Verdict, agreement_of, flags_of
from ..workspaces import Artifact, Provider, WorkspaceError
from .audit import alternatives_of, cheats_for, mutants_of
from .rollout.authored import gold_policy, null_policy
from .rollout.episode import attempt_episode, verify
from .rollout.policy import Policy
from .task import Task
from .trajectory import Trajectory

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Reason = Literal[
    "admitted",
    "null_passes",
    "null_unscored",
    "gold_fails",
    "gold_unscored",
    "gold_unfinished",
    "gold_flaky",
    "cheat_pays",
    "alternative_refused",
]


class AdmissionError(WorkspaceError):
    """The machinery failed while a task was probed; says nothing about the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is tried on a task."""

    runs: int = 3
    """Of the gold solution, and of doing nothing."""
    cheats: int | None = None
    """Of the battery; None = all that fit."""
    mutants: int | None = 24
    alternatives: bool = True
    at_once: int = 1
    """Probes under way at the same time, where one does not decide about the next."""


FULL = Plan()
QUICK = Plan(cheats=2, mutants=3, alternatives=False, at_once=2)
"""While tasks are made: each tries another part of the battery, so that a run tries all of it."""

PLANS = {"quick": QUICK, "full": FULL}
CALIBRATION = Plan(runs=1, cheats=0, mutants=0, alternatives=False)
"""Only whether gold and null are told apart, for judges that are new to a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One cheat or rewrite, and what came of it."""

    name: str
    outcome: str
    score: float
    flags: tuple[str, ...] = ()
    """The kinds of reward hacks that were recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Whether a task may be used, and what was seen. As JSON it is the evidence beside the task."""

    task: Task = field(repr=False)
    """As admitted: without the tests that turned out to be flaky."""
    task_id: str
    admitted: bool
    reason: Reason
    detail: str = ""
    """What decided against it; empty = admitted."""
    null: tuple[Verdict, ...]
    gold: tuple[Verdict, ...]
    """One verdict a run, up to the first that did not pass."""
    flakes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Check -> gold runs that passed it, and all of them; only checks that failed once."""
    dropped: tuple[str, ...] = ()
    """Flaky tests that the task lost."""
    cheats: tuple[Tried, ...] = ()
    alternatives: tuple[Tried, ...] = ()
    mutants: int = 0
    """Near misses that were judged."""
    killed: int = 0
    survivors: tuple[str, ...] = ()
    """Near misses that passed: a hole in the verifier, or no fault at all."""
    wall_s: float
    step_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each kind of probe, in the order they were made."""
    task_bytes: int
    """Seed and hidden assets, which every copy of the task carries."""

    @property
    def verifier_strength(self) -> float | None:
        """The share of near misses that fail; None = none could be made or judged."""
        return self.killed / self.mutants if self.mutants else None

    @property
    def agreement(self) -> dict[str, tuple[int, int]]:
        """Where a panel judges: its votes on the gold solution and on doing nothing that went with
        the decision, and all that were cast. On an admitted gold solution the decision is right.
        """
        votes = {
            name: [count for verdict in verdicts if (count := agreement_of(verdict))]
            for name, verdicts in (("gold", self.gold), ("null", self.null))
        }
        return {
            name: (sum(same for same, _ in counts), sum(cast for _, cast in counts))
            for name, counts in votes.items()
            if counts
        }

    @property
    def agreements(self) -> list[str]:
        """The same, a line each."""
        found = self.agreement.items()
        return [f"judges: {same} of {cast} votes on {what} agree" for what, (same, cast) in found]

    def evidence(self) -> dict[str, Any]:
        """For `admission.json`, as JSON values."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "task"}
        plain = {
            name: [asdict(each) for each in value]
            if name in ("null", "gold", "cheats", "alternatives")
            else value
            for name, value in fields.items()
        }
        judged = {"agreement": self.agreement} if self.agreement else {}
        return {**plain, **judged, "verifier_strength": self.verifier_strength}


class _Refused(Exception):
    """A probe decided against the task."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def plan_of(name: Literal["quick", "full"], runs: int | None = None) -> Plan:
    """A plan by its name, with its own number of gold and null runs or another."""
    plan = PLANS[name]
    return plan if runs is None else replace(plan, runs=runs)


async def admit(
    task: Task, provider: Provider, *, plan: Plan = FULL, judges: Sequence[Policy] = ()
) -> Admission:
    """Probe a task; the first failure decides.

    Once doing nothing (it costs least and rejects most), once the gold solution, then the cheats,
    the other runs of both, other right answers, and near misses.

    Raises:
        AdmissionError: a probe broke in our machinery.
    """
    audit = _Audit(task, provider, plan, judges)
    reason: Reason = "admitted"
    detail = ""
    try:
        await audit.run()
    except _Refused as refusal:
        reason, detail = refusal.reason, refusal.detail
    return audit.admission(reason, detail)


class _Audit:
    """The probes of one task, and what they found so far."""

    def __init__(
        self, task: Task, provider: Provider, plan: Plan, judges: Sequence[Policy]
    ) -> None:
        self.task, self.provider, self.plan, self.judges = task, provider, plan, judges
        self.began = time.monotonic()
        self.step_s: dict[str, float] = {}
        self.null: list[Verdict] = []
        self.gold: list[Verdict] = []
        self.artifact = Artifact(files={})
        self.flakes: dict[str, tuple[int, int]] = {}
        self.dropped: list[str] = []
        self.cheats: list[Tried] = []
        self.alternatives: list[Tried] = []
        self.judged: list[tuple[str, str]] = []

    async def run(self) -> None:
        """Every probe in turn."""
        await self._timed("null", self._try_null)
        await self._timed("gold", self._try_gold)
        await self._timed("cheats", self._try_cheats)
        for _ in range(1, self.plan.runs):
            await self._timed("repeats", self._try_both)
        if self.plan.alternatives:
            await self._timed("alternatives", self._try_alternatives)
        await self._timed("mutants", self._try_mutants)

    def admission(self, reason: Reason, detail: str) -> Admission:
        """All that was found."""
        task, killed = self.task, [label for label, outcome in self.judged if outcome == "fail"]
        return Admission(
            task=task,
            task_id=task.task_id,
            admitted=reason == "admitted",
            reason=reason,
            detail=detail,
            null=tuple(self.null),
            gold=tuple(self.gold),
            flakes=self.flakes,
            dropped=tuple(self.dropped),
            cheats=tuple(self.cheats),
            alternatives=tuple(self.alternatives),
            mutants=len(self.judged),
            killed=len(killed),
            survivors=tuple(label for label, outcome in self.judged if outcome == "pass"),
            wall_s=time.monotonic() - self.began,
            step_s=self.step_s,
            task_bytes=len(task.workspace.seed) + sum(map(len, task.hidden.values())),
        )

    async def _timed(self, step: str, probe: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        try:
            await probe()
        finally:
            self.step_s[step] = self.step_s.get(step, 0.0) + time.monotonic() - began

    async def _try_both(self) -> None:
        await self._all(lambda probe: probe(), [self._try_null, self._try_gold])

    async def _try_null(self) -> None:
        row = await self._probe(null_policy(), self._in_haste, attempt=len(self.null))
        self.null.append(_verdict(row))
        if row.outcome != "fail":
            raise _Refused("null_passes" if row.outcome == "pass" else "null_unscored")

    async def _try_gold(self) -> None:
        row = await self._probe(gold_policy(), self.task, attempt=len(self.gold))
        verdict, first = _verdict(row), not self.gold
        self.gold.append(verdict)
        failing = [check.name for check in verdict.checks if check.outcome == "fail"]
        if row.outcome == "pass":
            self.artifact = row.artifact
            if row.status != "submitted":
                raise _Refused("gold_unfinished", row.status)
        elif first and (row.outcome == "unscored" or not self._droppable(failing)):
            raise _Refused("gold_unscored" if row.outcome == "unscored" else "gold_fails")
        elif first:
            await self._retry_gold(failing)
        else:
            self._drop(failing)
        self._count(failing)

    async def _retry_gold(self, failing: Sequence[str]) -> None:
        """A second first run: tests that fail in one of the two alone are flaky."""
        row = await self._probe(gold_policy(), self.task, attempt=len(self.gold))
        self.gold.append(_verdict(row))
        if row.outcome != "pass" or row.status != "submitted":
            self._count(failing)
            raise _Refused("gold_fails", ", ".join(failing)[:300])
        self.artifact = row.artifact
        self._drop(failing)

    def _droppable(self, failing: Sequence[str]) -> list[str]:
        """The tests among failing checks, if the task can do without them; else none."""
        params = self.task.verifier.params
        tests = {*params.get("fail_to_pass", ()), *params.get("pass_to_pass", ())}
        flaky = [name for name in failing if name in tests]
        left = [test for test in params.get("fail_to_pass", ()) if test not in flaky]
        return flaky if left and {*failing} <= {*flaky, "pass_to_pass"} else []

    def _drop(self, failing: Sequence[str]) -> None:
        """Take flaky tests out of the task; refuse it when nothing that must be fixed is left."""
        params, flaky = self.task.verifier.params, self._droppable(failing)
        if not flaky:
            self._count(failing)
            raise _Refused("gold_flaky", ", ".join(failing)[:300])
        left = [test for test in params["fail_to_pass"] if test not in flaky]
        kept = [test for test in params["pass_to_pass"] if test not in flaky]
        changed = {**params, "fail_to_pass": left, "pass_to_pass": kept}
        self.task = replace(self.task, verifier=replace(self.task.verifier, params=changed))
        self.dropped += flaky

    def _count(self, failing: Sequence[str]) -> None:
        """Keep how often each check that ever failed has passed."""
        runs = len(self.gold)
        for name in {*self.flakes, *failing}:
            failed = sum(
                check.name == name and check.outcome == "fail"
                for verdict in self.gold
                for check in verdict.checks
            )
            self.flakes[name] = (runs - failed, runs)

    async def _try_cheats(self) -> None:
        async def attempt(cheat: Any) -> Tried:
            row = await self._probe(cheat.policy(), self._in_haste, attempt=0)
            return _tried(cheat.name, _verdict(row))

        self.cheats = await self._all(attempt, cheats_for(self.task, self.plan.cheats))
        paid = [tried.name for tried in self.cheats if tried.outcome == "pass"]
        if paid:
            raise _Refused("cheat_pays", ", ".join(paid))

    async def _try_alternatives(self) -> None:
        async def attempt(variant: Any) -> Tried:
            return _tried(variant.label, await self._verify(self.task, variant.artifact))

        self.alternatives = await self._all(attempt, alternatives_of(self.task, self.artifact))
        refused = [tried.name for tried in self.alternatives if tried.outcome == "fail"]
        if refused:
            raise _Refused("alternative_refused", ", ".join(refused)[:300])

    async def _try_mutants(self) -> None:
        async def attempt(variant: Any) -> tuple[str, str]:
            return variant.label, (await self._verify(self._in_haste, variant.artifact)).outcome

        mutants = mutants_of(self.task, self.artifact, self.plan.mutants)
        judged = await self._all(attempt, mutants)
        self.judged = [each for each in judged if each[1] != "unscored"]

    async def _all(
        self, attempt: Callable[[ItemT], Awaitable[ResultT]], items: Sequence[ItemT]
    ) -> list[ResultT]:
        slots = asyncio.Semaphore(self.plan.at_once)

        async def one(item: ItemT) -> ResultT:
            async with slots:
                return await attempt(item)

        futures = [asyncio.ensure_future(one(item)) for item in items]
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()
            await asyncio.gather(*futures, return_exceptions=True)

    @property
    def _in_haste(self) -> Task:
        """The task for what is expected to fail: a suite need not run on once it has."""
        spec = self.task.verifier
        if spec.name != "test_suite":
            return self.task
        hasty = replace(spec, params={**spec.params, "until_decided": True})
        return replace(self.task, verifier=hasty)

    async def _verify(self, task: Task, artifact: Artifact) -> Verdict:
        try:
            return await verify(task, artifact, self.provider, judges=self.judges)
        except WorkspaceError as error:
            raise self._broke("verifier", f"{type(error).__name__}: {error}") from error

    async def _probe(self, policy: Policy, task: Task, *, attempt: int) -> Trajectory:
        tries = await attempt_episode(
            task,
            policy,
            self.provider,
            run_id="admission",
            attempt=attempt,
            seed=attempt,
            retries=1,
            judges=self.judges,
        )
        row = tries[-1]
        if row.verdict is None:
            raise self._broke(f"{policy.name} policy", row.error)
        return row

    def _broke(self, what: str, error: str) -> AdmissionError:
        return AdmissionError(
            f"admission of task {self.task.task_id} ({self.task.family}) broke with the {what}, "
            f"{error}; run it again"
        )


def _tried(name: str, verdict: Verdict) -> Tried:
    return Tried(name=name, outcome=verdict.outcome, score=verdict.score, flags=flags_of(verdict))


def _verdict(row: Trajectory) -> Verdict:
    assert row.verdict is not None, "_probe() raised for those without"
    return row.verdict
