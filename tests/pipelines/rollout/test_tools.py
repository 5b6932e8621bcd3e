"""The tools in a real workspace: whatever a model asks for, it gets text back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from rollmill.pipelines.rollout.tools import TOOLS, Bench, use
from rollmill.workspaces import Workspace, WorkspaceGone, open_provider, opened

from .handmade import BROKEN, bug_task

pytestmark = pytest.mark.docker


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    provider = open_provider("docker")
    async with opened(provider, bug_task().workspace) as workspace:
        yield Bench(workspace=workspace, deadline=time.monotonic() + 60, max_chars=2000)
    await provider.close()


async def run(bench: Bench, name: str, **arguments: object) -> str:
    return await use(TOOLS[name], bench, arguments)


async def test_bash_shows_output_then_errors_then_the_exit_code(bench: Bench) -> None:
    assert await run(bench, "bash", command="echo out; echo err >&2; exit 3") == (
        "out\nerr\n[exit code 3]"
    )
    assert await run(bench, "bash", command="true") == "(no output)"
    assert await run(bench, "bash", command="printf '\\xff'") != ""
    assert "NUL" in await run(bench, "bash", command="echo \0")
    assert "too long" in await run(bench, "bash", command="echo " + "x" * 200_000)


async def test_a_command_past_its_time_is_said_to_be_killed(bench: Bench) -> None:
    began = time.monotonic()
    seen = await run(bench, "bash", command="echo first; sleep 30", timeout_s=1)
    assert seen == "first\n[killed: it ran past its time limit]"
    assert time.monotonic() - began < 10


async def test_long_output_is_cut_and_says_where_the_rest_is(bench: Bench) -> None:
    short = await run(bench, "bash", command="seq 1 2000")
    assert len(short) < 2000
    assert "characters cut; use sed" in short
    assert short.startswith("1\n2\n")
    assert short.endswith("\n2000")
    long = await run(bench, "bash", command="seq 1 100000")
    path = long.partition("all of it is in ")[2].split()[0]
    assert await run(bench, "bash", command=f"sed -n '77777p' {path}") == "77777"


async def test_a_file_is_read_in_numbered_pages(bench: Bench) -> None:
    await run(bench, "bash", command="seq 1 450 > n.txt; : > empty")
    page = await run(bench, "read_file", path="n.txt")
    assert page.startswith("   1| 1\n")
    assert page.endswith(" 200| 200\n[250 more lines; go on with start=201]")
    assert await run(bench, "read_file", path="n.txt", start=449) == " 449| 449\n 450| 450"
    assert await run(bench, "read_file", path="n.txt", start=3, end=3) == "   3| 3"
    assert "has 450 lines" in await run(bench, "read_file", path="n.txt", start=451)
    assert "nothing between" in await run(bench, "read_file", path="n.txt", start=9, end=3)
    assert await run(bench, "read_file", path="empty") == "empty is empty"


@pytest.mark.parametrize(
    "path", ["missing.txt", ".", "/etc/shadow", "../../etc/passwd", "link", "", "\0", "a\udcff"]
)
async def test_a_path_that_cannot_be_read_is_an_error_text(bench: Bench, path: str) -> None:
    await run(bench, "bash", command="ln -s /etc/passwd link")
    seen = await run(bench, "read_file", path=path)
    assert seen.startswith("error: ")
    assert "root:" not in seen


@pytest.mark.parametrize("path", ["/etc/x", "../x", "calc.py/x", "", "\0"])
async def test_a_path_that_cannot_be_written_is_an_error_text(bench: Bench, path: str) -> None:
    seen = await run(bench, "write_file", path=path, content="x")
    assert seen.startswith("error: ")


async def test_what_is_written_is_read_back(bench: Bench) -> None:
    text = "ü\n\tx = 'y'\r\n"
    seen = await run(bench, "write_file", path="deep/er/a.txt", content=text)
    assert seen == f"wrote {len(text.encode())} bytes to deep/er/a.txt"
    assert await bench.workspace.get("deep/er/a.txt", max_bytes=100) == text.encode()


async def test_an_edit_changes_the_file_and_shows_the_line(bench: Bench) -> None:
    seen = await run(bench, "edit_file", path="calc.py", line=2, old="a > b", new="a < b")
    assert seen == "edited calc.py:\n   2|     return a if a < b else b"
    changed = await bench.workspace.get("calc.py", max_bytes=1000)
    assert changed == BROKEN.replace(b"a > b", b"a < b")


async def test_a_refused_edit_changes_nothing(bench: Bench) -> None:
    seen = await run(bench, "edit_file", path="calc.py", line=1, old="a > b", new="a < b")
    assert seen.startswith("error: `old` is not on line 1 but on line 2")
    assert await bench.workspace.get("calc.py", max_bytes=1000) == BROKEN
    await run(bench, "bash", command="printf '\\xff\\n' > binary")
    seen = await run(bench, "edit_file", path="binary", line=1, old="a", new="b")
    assert "not UTF-8" in seen


async def test_an_edited_program_stays_executable(bench: Bench) -> None:
    await run(bench, "bash", command="printf '#!/bin/sh\\necho a\\n' > p; chmod +x p")
    await run(bench, "edit_file", path="p", line=2, old="a", new="b")
    assert await run(bench, "bash", command="./p") == "b"


async def test_a_dead_workspace_is_an_error_and_never_an_observation(bench: Bench) -> None:
    workspace: Workspace = bench.workspace
    await workspace.close()
    for name, arguments in (("bash", {"command": "true"}), ("read_file", {"path": "calc.py"})):
        with pytest.raises(WorkspaceGone):
            await use(TOOLS[name], bench, arguments)
