import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.model import ToolCall
from rollmill.pipelines.task import Move, Task
from rollmill.pipelines.taskfolder import TaskFolderError, load_task, save_task
from rollmill.verifiers import VerifierSpec
from rollmill.workspaces import WorkspaceSpec, unpack_tree

MakeTask = Callable[..., Task]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_saved_loads_equal(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    save_task(task, tmp_path / "t", admission={"gold": ["pass", "pass"]})

    assert load_task(tmp_path / "t") == task


def test_a_task_with_nothing_optional_loads_equal(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(
        workspace=WorkspaceSpec(image="office"),
        hidden={},
        solution=(),
        verifier=VerifierSpec(name="answer", params={"expected": {"a": None, "b": [1, 2.5]}}),
        instruction="",
        provenance=replace(make_task().provenance, detail={}),
    )
    save_task(task, tmp_path / "t")

    assert load_task(tmp_path / "t") == task


def test_the_hosts_that_a_task_may_reach_stand_in_its_folder(
    make_task: MakeTask, tmp_path: Path
) -> None:
    hosts = ("pypi.org", "mirror.test:8443")
    task = make_task(workspace=WorkspaceSpec(image="python", network=hosts))
    save_task(task, tmp_path / "t")
    file = tmp_path / "t/task.toml"
    toml = tomllib.loads(file.read_text())

    assert load_task(tmp_path / "t") == task
    assert toml["metadata"]["rollmill"]["network"] == list(hosts)
    assert toml["environment"]["network_mode"] == "no-network"
    assert toml["agent"]["network_mode"] == "allowlist"
    assert toml["agent"]["allowed_hosts"] == ["mirror.test", "pypi.org"]
    file.write_text(file.read_text().replace('"pypi.org",', '"pypi.org", "evil.test",'))
    with pytest.raises(TaskFolderError, match="its settings changed"):
        load_task(tmp_path / "t")
    file.write_text(file.read_text().replace("evil.test", "10.0.0.1"))
    with pytest.raises(TaskFolderError, match="make the task again"):
        load_task(tmp_path / "t")


def test_the_folders_that_a_task_may_change_stand_in_its_folder(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(workspace=WorkspaceSpec(image="python", writable=("/opt/app", "/srv")))
    save_task(task, tmp_path / "t")
    toml = tomllib.loads((tmp_path / "t/task.toml").read_text())

    assert load_task(tmp_path / "t") == task
    assert toml["metadata"]["rollmill"]["writable"] == ["/opt/app", "/srv"]


def test_the_same_task_gives_the_same_bytes(make_task: MakeTask, tmp_path: Path) -> None:
    save_task(make_task(), tmp_path / "a")
    save_task(make_task(), tmp_path / "b")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(), min_size=3, max_size=3))
def test_any_text_survives(
    texts: list[str], make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory
) -> None:
    instruction, thought, content = texts
    call = ToolCall(name="write_file", arguments={"path": "x", "content": content})
    task = make_task(instruction=instruction, solution=(Move(thought=thought, calls=(call,)),))
    folder = tmp_path_factory.mktemp("texts") / "t"
    save_task(task, folder)

    assert load_task(folder) == task


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("instruction.md", "instruction"),
        ("environment/workspace.tar.gz", "seed"),
        ("tests/hidden/tests/test_tiny.py", "hidden assets"),
    ],
)
def test_a_changed_part_is_refused_by_name(
    make_task: MakeTask, tmp_path: Path, file: str, part: str
) -> None:
    save_task(make_task(), tmp_path / "t")
    with (tmp_path / "t" / file).open("ab") as changed:
        changed.write(b"!")

    with pytest.raises(TaskFolderError, match=f"its {part} changed"):
        load_task(tmp_path / "t")


def test_every_part_that_differs_is_named(make_task: MakeTask, tmp_path: Path) -> None:
    save_task(make_task(), tmp_path / "t")
    (tmp_path / "t" / "solution/moves.json").write_text("[]")
    (tmp_path / "t" / "tests/hidden/extra.py").write_text("")
    toml = tmp_path / "t" / "task.toml"
    toml.write_text(toml.read_text().replace("max_turns = 5", "max_turns = 50"))

    with pytest.raises(TaskFolderError, match="hidden assets and solution and settings changed"):
        load_task(tmp_path / "t")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("task.toml", b"not = [toml"),
        ("task.toml", b"[metadata]\n"),
        ("task.toml", b"\xff\xfe"),
        ("solution/moves.json", b"{"),
        ("solution/moves.json", b'[{"thought": 1}]'),
        ("tests/verifier.json", b"[]"),
        ("instruction.md", None),
        ("tests/verifier.json", None),
    ],
)
def test_damage_is_one_sentence(
    make_task: MakeTask, tmp_path: Path, file: str, content: bytes | None
) -> None:
    save_task(make_task(), tmp_path / "t")
    damaged = tmp_path / "t" / file
    damaged.unlink() if content is None else damaged.write_bytes(content)

    with pytest.raises(TaskFolderError, match="make the task again") as caught:
        load_task(tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TaskFolderError, match="is no task folder"):
        load_task(tmp_path / "nothing")


def test_saving_again_keeps_the_task_and_takes_the_new_evidence(
    make_task: MakeTask, tmp_path: Path
) -> None:
    save_task(make_task(), tmp_path / "t", admission={"wall_s": 1})
    save_task(make_task(), tmp_path / "t", admission={"wall_s": 2})

    assert json.loads((tmp_path / "t/admission.json").read_text()) == {"wall_s": 2}
    with pytest.raises(TaskFolderError, match="choose another"):
        save_task(make_task(instruction="Other."), tmp_path / "t")


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "./a"])
def test_a_hidden_asset_cannot_leave_the_folder(
    make_task: MakeTask, tmp_path: Path, path: str
) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        save_task(make_task(hidden={path: b""}), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def in_local_folders(script: Path, workspace: Path, tests: Path, logs: Path) -> str:
    """The script with Harbor's absolute places moved, so that it runs without a container."""
    moved = script.read_text().replace("/workspace", str(workspace))
    return moved.replace("/tests/", f"{tests}/").replace("/logs", str(logs))


def run_script(script: str) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    subprocess.run(["bash", "-c", script], check=True, capture_output=True, env=environment)


def lay_seed(task: Task, workspace: Path) -> None:
    for name, content in unpack_tree(task.workspace.seed).items():
        (workspace / name).write_bytes(content)


def test_solve_performs_the_gold_moves_and_test_sees_the_difference(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task, folder, workspace, logs = make_task(), tmp_path / "t", tmp_path / "w", tmp_path / "logs"
    workspace.mkdir()
    save_task(task, folder)
    lay_seed(task, workspace)
    test = in_local_folders(folder / "tests/test.sh", workspace, folder / "tests", logs)
    test = test.replace("python3", sys.executable)
    solve = in_local_folders(folder / "solution/solve.sh", workspace, folder / "tests", logs)

    run_script(test)
    assert (logs / "verifier/reward.txt").read_text() == "0"
    run_script(solve)
    assert (workspace / "a/b.py").read_text() == "x = 'ü'"
    run_script(test)
    assert (logs / "verifier/reward.txt").read_text() == "1"


def test_a_verifier_without_a_shell_form_gives_no_reward(
    make_task: MakeTask, tmp_path: Path
) -> None:
    save_task(make_task(verifier=VerifierSpec(name="workbook")), tmp_path / "t")

    script = tmp_path / "t/tests/test.sh"
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "workbook" in done.stderr
    assert "reward.txt" not in script.read_text()


def test_the_sections_are_those_that_harbor_reads(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    save_task(task, tmp_path / "t")
    toml = tomllib.loads((tmp_path / "t/task.toml").read_text())

    assert toml["schema_version"] == "1.4"
    assert toml["task"]["name"] == f"rollmill/{task.task_id}"
    assert toml["artifacts"] == ["/workspace/tiny.py", "/workspace/a"]
    assert toml["agent"]["timeout_sec"] == 30.0
    assert toml["verifier"]["environment_mode"] == "separate"
    assert toml["environment"]["network_mode"] == "no-network"
