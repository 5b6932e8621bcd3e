"""The funnel of one or more runs: how many came how far, and what it cost. Reads, never writes."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .composite import baselines, turn_rewards
from .records import STAGES, ProposalRecord, read_records
from .schema import Row
from .store import read_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One stage: what reached it, and what was spent on that."""

    stage: str
    count: int
    seconds: float
    """Proposals: building and admission; episodes: their four timings."""
    bytes: int
    """Proposals: seed and hidden assets; episodes: the artifacts."""
    tokens: int
    """Sampled; 0 for proposals and for policies that report no tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the runs made."""

    runs: tuple[str, ...]
    funnel: tuple[Line, ...]
    families: Mapping[str, tuple[Line, ...]]
    policies: Mapping[str, tuple[Line, ...]]
    """Episodes only."""
    rewards: Mapping[str, float]
    """Policy -> mean reward of an episode with process and speed; see `composite.py`."""
    rejections: Mapping[str, Mapping[str, int]]
    """Family -> reason -> count."""
    statuses: Mapping[str, int]
    failed_attempts: int
    """Attempts that our machinery failed; their episodes were tried again."""

    def to_json(self) -> str:
        """The same for machines."""
        return json.dumps(asdict(self))

    def line(self, stage: str) -> Line:
        """One line of the funnel by its stage."""
        return next(line for line in self.funnel if line.stage == stage)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cost:
    """One proposal or episode, as the lines add it up."""

    stages: frozenset[str]
    family: str
    policy: str
    seconds: float
    bytes: int
    tokens: int


EPISODE_STAGES = ("episodes", "passed", "failed", "unscored", "kept")
"""`kept` = scored, which is what an export keeps unless told otherwise."""

_STAGES_OF_OUTCOME = {
    "pass": frozenset({"episodes", "passed", "kept"}),
    "fail": frozenset({"episodes", "failed", "kept"}),
    "unscored": frozenset({"episodes", "unscored"}),
}


def make_report(runs: Sequence[Path]) -> Report:
    """Count what runs made, finished or not.

    Raises:
        NotARun: a path is no run.
        CorruptRun: a file of one cannot be read back.
    """
    records = [record for run in runs for record in read_records(run / "proposals.jsonl")]
    rejections: dict[str, Counter[str]] = {}
    for record in records:
        if record.reason:
            rejections.setdefault(record.family, Counter())[record.reason] += 1
    statuses: Counter[str] = Counter()
    costs = [_proposal_cost(record) for record in records]
    for row in (row for run in runs for row in read_rows(run)):
        statuses[row["status"]] += 1
        costs.append(_episode_cost(row))
    return Report(
        runs=tuple(map(str, runs)),
        funnel=_lines(costs, (*STAGES, *EPISODE_STAGES)),
        families=_lines_by(costs, lambda cost: cost.family, (*STAGES, *EPISODE_STAGES)),
        policies=_lines_by(costs, lambda cost: cost.policy, EPISODE_STAGES),
        rewards=_mean_rewards(runs),
        rejections={
            family: dict(reasons.most_common()) for family, reasons in sorted(rejections.items())
        },
        statuses=dict(statuses.most_common()),
        failed_attempts=sum(len(list((run / "attempts").glob("*.arrow"))) for run in runs),
    )


def _mean_rewards(runs: Sequence[Path]) -> dict[str, float]:
    baseline_s = baselines(row for run in runs for row in read_rows(run))
    found: dict[str, list[float]] = {}
    for row in (row for run in runs for row in read_rows(run)):
        if row["reward"] is not None and row["turns"]:
            found.setdefault(row["policy"], []).append(sum(turn_rewards(row, baseline_s)))
    return {policy: round(statistics.mean(each), 3) for policy, each in sorted(found.items())}


def _proposal_cost(record: ProposalRecord) -> _Cost:
    reached = STAGES[: STAGES.index(record.stage) + 1]
    return _Cost(
        stages=frozenset(reached),
        family=record.family,
        policy="",
        seconds=record.build_s + record.admit_s,
        bytes=record.bytes,
        tokens=0,
    )


def _episode_cost(row: Row) -> _Cost:
    return _Cost(
        stages=_STAGES_OF_OUTCOME[row["outcome"]],
        family=row["family"],
        policy=row["policy"],
        seconds=sum(row["timings"].values()),
        bytes=sum(len(file["content"] or b"") for file in row["artifact"]),
        tokens=sum(len(turn["completion_ids"]) for turn in row["turns"]),
    )


def _lines_by(
    costs: Sequence[_Cost], key: Callable[[_Cost], str], stages: Iterable[str]
) -> dict[str, tuple[Line, ...]]:
    names = sorted({key(cost) for cost in costs} - {""})
    return {name: _lines([c for c in costs if key(c) == name], stages) for name in names}


def _lines(costs: Sequence[_Cost], stages: Iterable[str]) -> tuple[Line, ...]:
    return tuple(_line(stage, [cost for cost in costs if stage in cost.stages]) for stage in stages)


def _line(stage: str, costs: Sequence[_Cost]) -> Line:
    totals: dict[str, Any] = {
        name: sum(getattr(cost, name) for cost in costs) for name in ("bytes", "tokens")
    }
    seconds = round(sum(cost.seconds for cost in costs), 3)
    return Line(stage=stage, count=len(costs), seconds=seconds, **totals)
