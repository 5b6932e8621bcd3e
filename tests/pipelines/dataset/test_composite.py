"""Speed and process weigh as documented, and only where they may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollmill.pipelines.dataset.composite import baselines, turn_rewards
from rollmill.pipelines.dataset.schema import Row, to_row
from rollmill.pipelines.trajectory import Timings, Trajectory
from rollmill.verifiers import Verdict
from rollmill.verifiers.reward import Weights

FAILED = Verdict(outcome="fail", score=0.0)


def row(make: Callable[..., Trajectory], seconds: float, **changes: object) -> Row:
    parts = {"outcome": 1.0, "format@0": -1.0}
    made = make(0, timings=Timings(setup_s=50, policy_s=seconds, tools_s=seconds, verify_s=50))
    return to_row(replace(made, **{"reward_parts": parts, **changes}))  # type: ignore[arg-type]


def test_the_baseline_is_the_median_of_those_that_passed(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    rows = [row(make_trajectory, seconds) for seconds in (1, 2, 9)]
    rows.append(row(make_trajectory, 100, verdict=FAILED, reward=0.0))
    assert baselines(rows) == {rows[0]["task_id"]: 4}


def test_the_faster_of_two_that_passed_gets_more(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    slow, fast = row(make_trajectory, 3), row(make_trajectory, 1)
    baseline_s = baselines([slow, fast])
    turns = len(slow["turns"])
    assert sum(turn_rewards(slow, baseline_s)) == pytest.approx(1 - 0.1 + 0.1 * 4 / 10)
    assert sum(turn_rewards(fast, baseline_s)) == pytest.approx(1 - 0.1 + 0.1 * 4 / 6)
    assert len(turn_rewards(slow, {})) == turns
    assert sum(turn_rewards(slow, {})) == pytest.approx(0.9)
    assert sum(turn_rewards(slow, baseline_s, weights=Weights(alpha=0, beta=0))) == 1.0


def test_what_failed_gets_nothing_for_its_speed_and_what_was_not_scored_nothing_at_all(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    failed = row(make_trajectory, 1, verdict=FAILED, reward=0.0, reward_parts={"outcome": 0.0})
    assert sum(turn_rewards(failed, {failed["task_id"]: 1.0})) == 0.0
    assert turn_rewards(row(make_trajectory, 1, reward=None, verdict=None), {}) == []
