"""What a policy is worth, by family, from the episodes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..pipelines.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Episodes of one family."""

    family: str
    episodes: int
    passed: int
    unscored: int
    mean_turns: float


def scores(rows: Sequence[Trajectory]) -> list[Score]:
    """One line a family, in alphabetical order."""
    families = sorted({row.family for row in rows})
    return [_score(name, [row for row in rows if row.family == name]) for name in families]


def parsed_share(rows: Sequence[Trajectory]) -> float | None:
    """The share of turns whose reply was a well-formed tool call; None = there was no turn."""
    errors = [turn.format_error for row in rows for turn in row.turns]
    return errors.count(None) / len(errors) if errors else None


def _score(family: str, rows: Sequence[Trajectory]) -> Score:
    outcomes = [row.outcome for row in rows]
    return Score(
        family=family,
        episodes=len(rows),
        passed=outcomes.count("pass"),
        unscored=outcomes.count("unscored"),
        mean_turns=sum(len(row.turns) for row in rows) / len(rows),
    )
