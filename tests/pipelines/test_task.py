from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rollmill.pipelines.task import Task

MakeTask = Callable[..., Task]


def test_equal_tasks_have_equal_ids_however_their_numbers_are_written(make_task: MakeTask) -> None:
    whole = make_task()
    written_otherwise = replace(whole, budget=replace(whole.budget, time_limit_s=30.0))

    assert whole == written_otherwise
    assert whole.task_id == written_otherwise.task_id


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "Something else."},
        {"hidden": {}},
        {"hidden": {"tests/test_tiny.py": b""}},
        {"artifacts": ("a", "tiny.py")},
        {"solution": ()},
        {"domain": "cowork"},
    ],
)
def test_every_part_of_the_content_changes_the_id(
    make_task: MakeTask, change: dict[str, Any]
) -> None:
    assert make_task().task_id != make_task(**change).task_id
