"""The fake keeps the contract's file rules and replays what it was given."""

from dataclasses import replace

import pytest

from rollmill.workspaces import (
    ExecResult,
    FileRefused,
    ScriptedProvider,
    WorkspaceGone,
    WorkspaceSpec,
    collect,
    difference,
    forked,
    opened,
    pack_tree,
)

RESULT = ExecResult(exit_code=3, stdout="out", stderr="", duration_s=0.1)
SPEC = WorkspaceSpec(image="python", seed=pack_tree({"a.txt": b"a", "d/b.txt": b"b"}))


async def test_results_and_failures_replay_in_order_and_calls_are_kept() -> None:
    provider = ScriptedProvider([[RESULT, WorkspaceGone("scripted")]])
    async with opened(provider, SPEC) as workspace:
        assert await workspace.exec(["make"], cwd="d", stdin=b"x") == RESULT
        with pytest.raises(WorkspaceGone, match="scripted"):
            await workspace.exec(["make"])
        with pytest.raises(AssertionError, match="no scripted result"):
            await workspace.exec(["make"])
    assert [call.argv for call in provider.opened[0].calls] == [("make",)] * 3
    assert provider.opened[0].calls[0].cwd == "d"
    with pytest.raises(WorkspaceGone):
        await workspace.exec(["make"])


async def test_files_behave_as_in_a_real_workspace() -> None:
    async with opened(ScriptedProvider(), SPEC) as workspace:
        assert (await collect(workspace, ["."])).files == {}
        await workspace.put("/workspace/./d/c.txt", b"c")
        await workspace.put("/tmp/elsewhere", b"t")
        await workspace.put_tree(pack_tree({"e.txt": b"e"}), "d")
        assert (await collect(workspace, ["d"])).files == {"d/c.txt": b"c", "d/e.txt": b"e"}
        with pytest.raises(FileNotFoundError):
            await workspace.get("nothing", max_bytes=9)
        for attempt in (
            workspace.get("a.txt", max_bytes=0),
            workspace.get("../etc/passwd", max_bytes=9),
            workspace.get_tree(["."], max_bytes=2),
        ):
            with pytest.raises(FileRefused):
                await attempt


async def test_services_shells_and_terminals_replay_too() -> None:
    said = replace(RESULT, stdout="one\r\ntwo", exit_code=0)
    provider = ScriptedProvider([[said, RESULT, said]])
    async with opened(provider, SPEC) as workspace:
        server = await workspace.start(["serve"], cwd="d")
        assert (await server.wait_for("two", timeout_s=1)).start() == 5
        await server.send(b"hello")
        shell = await workspace.shell()
        assert await shell.run("make") == replace(RESULT, stdout_bytes=0)
        terminal = await workspace.terminal(["top"])
        assert (await terminal.screen()).lines[:2] == ["one", "two"]
        await server.stop()
        with pytest.raises(FileRefused, match="stopped"):
            await server.report()
        assert (await workspace.page("a.txt")).data == b"a"
    replayed = provider.opened[0]
    assert replayed.sent == [(1, b"hello")]
    assert [call.argv for call in replayed.calls] == [("serve",), ("make",), ("top",)]


async def test_trees_and_snapshots_behave_as_in_a_real_workspace() -> None:
    provider = ScriptedProvider()
    async with opened(provider, SPEC) as workspace:
        await workspace.put("a.txt", b"b\n")
        await workspace.put("new", b"n")
        async with forked(provider, workspace) as fork:
            found = await difference(fork)
            assert (list(found.changed), list(found.added)) == (["a.txt"], ["new"])
            assert "-a\n\\ No newline at end of file\n+b\n" in found.patch
            await fork.put("a.txt", b"c")
        assert await workspace.get("a.txt", max_bytes=9) == b"b\n"
        await workspace.put_tree(await workspace.get_tar("d", max_bytes=99), "e")
        assert await workspace.get("e/b.txt", max_bytes=9) == b"b"
