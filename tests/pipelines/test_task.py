from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from rollmill.pipelines.task import Task, content_digest

MakeTask = Callable[..., Task]
OLD_ID = "38cb8fc0b15addaf"
"""Of the fixture's task, before a workspace could have a network."""


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


def test_a_limit_that_came_later_changes_only_the_ids_of_tasks_that_set_it(
    make_task: MakeTask,
) -> None:
    task = make_task()
    first = {key: value for key, value in asdict(task.workspace.limits).items()
             if key not in ("inodes", "open_files")}  # fmt: skip
    workspace = asdict(task.workspace) | {"limits": first}
    del workspace["network"], workspace["writable"]  # which came later too
    written = asdict(task) | {"workspace": workspace}
    assert task.task_id == content_digest(written)

    more = replace(task.workspace, limits=replace(task.workspace.limits, inodes=99))
    assert make_task(workspace=more).task_id != task.task_id


@pytest.mark.parametrize("change", [{"network": ("pypi.org",)}, {"writable": ("/opt/app",)}])
def test_what_a_workspace_may_do_changes_the_id_and_its_absence_keeps_older_ones(
    make_task: MakeTask, change: Any
) -> None:
    closed = make_task()
    opened = replace(closed, workspace=replace(closed.workspace, **change))

    assert closed.task_id == OLD_ID
    assert opened.task_id != OLD_ID
