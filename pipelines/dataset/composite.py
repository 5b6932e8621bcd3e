"""The composite reward of stored episodes: process, speed and outcome, weighed when they are read.

`T` is what policy and tools took by the wall clock, and `T_baseline` the median of `T` over the
episodes that passed the same task; where none did, speed is not weighed. Rows keep the parts, so
other weights or another baseline need no rerun.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from ...verifiers.reward import Weights, rewards_per_turn, speed
from .schema import Row


def elapsed_s(row: Row) -> float:
    """Wall-clock seconds that an agent needed; workspaces and verdicts are not its doing."""
    return float(row["timings"]["policy_s"] + row["timings"]["tools_s"])


def baselines(rows: Iterable[Row]) -> dict[str, float]:
    """Task -> median seconds of the episodes that passed it."""
    passed: dict[str, list[float]] = {}
    for row in rows:
        if row["outcome"] == "pass":
            passed.setdefault(row["task_id"], []).append(elapsed_s(row))
    return {task: statistics.median(times) for task, times in passed.items()}


def turn_rewards(
    row: Row, baseline_s: Mapping[str, float], *, weights: Weights | None = None
) -> list[float]:
    """The reward of each turn of a stored episode; empty = it has no turns or was not scored."""
    if row["reward"] is None:
        return []
    known_s = baseline_s.get(row["task_id"], 0.0)
    parts = {part["name"]: part["value"] for part in row["reward_parts"]}
    fast = speed(elapsed_s(row), known_s) if known_s > 0 else 0.0
    return rewards_per_turn(parts, len(row["turns"]), weights=weights or Weights(), speed=fast)
