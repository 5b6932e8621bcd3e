from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from rollmill.pipelines.trajectory import RETRIED, SCORED, Status, Trajectory


def test_every_status_is_scored_or_retried_and_never_both() -> None:
    assert set(get_args(Status)) == SCORED | RETRIED
    assert not SCORED & RETRIED


def test_an_episode_without_a_verdict_is_unscored_whatever_its_status(
    make_trajectory: Callable[..., Trajectory],
) -> None:
    assert make_trajectory().outcome == "pass"
    assert replace(make_trajectory(), verdict=None).outcome == "unscored"
