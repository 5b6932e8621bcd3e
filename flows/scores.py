"""What a policy is worth, by family, from the episodes of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..pipelines.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Episodes of one policy on one family."""

    policy: str
    family: str
    episodes: int
    passed: int
    unscored: int
    mean_turns: float
    parsed: float | None
    """The share of turns whose reply was a well-formed tool call; None = there was no turn."""


def scores(rows: Iterable[Trajectory]) -> list[Score]:
    """One line for each policy and family, in alphabetical order."""
    groups: dict[tuple[str, str], list[Trajectory]] = defaultdict(list)
    for row in rows:
        groups[row.policy.partition(":")[0], row.family].append(row)
    return [_score(*key, groups[key]) for key in sorted(groups)]


def _score(policy: str, family: str, rows: Sequence[Trajectory]) -> Score:
    errors = [turn.format_error for row in rows for turn in row.turns]
    outcomes = [row.outcome for row in rows]
    return Score(
        policy=policy,
        family=family,
        episodes=len(rows),
        passed=outcomes.count("pass"),
        unscored=outcomes.count("unscored"),
        mean_turns=len(errors) / len(rows),
        parsed=errors.count(None) / len(errors) if errors else None,
    )
