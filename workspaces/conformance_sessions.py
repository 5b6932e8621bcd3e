"""What every provider must do between commands: services, shells and terminals, as checks."""

# The name of a check is what it claims.
# ruff: noqa: D103

from __future__ import annotations

import asyncio

from .base import Provider, Workspace, opened
from .conformance_kit import SPEC, bash, provider_check, refused, workspace_check
from .errors import FileRefused, NotStarted, WorkspaceGone

SERVER = ["python3", "-u", "-m", "http.server", "8000", "--bind", "127.0.0.1"]
FETCH = (
    "import urllib.request as web; "
    "print(web.urlopen('http://127.0.0.1:8000/seed.txt').read().decode(), end='')"
)
STEADY = "ps -e -o pid= -o args= | grep -c 's[l]eep 54321'"
SLEEPER = "(setsid sleep 54321 &) ; sleep 54321 &"


async def sleepers(workspace: Workspace) -> int:
    return int((await bash(workspace, STEADY)).stdout)


@workspace_check
async def a_server_answers_later_commands_until_it_is_stopped(workspace: Workspace) -> None:
    server = await workspace.start(SERVER)
    await server.wait_for("Serving HTTP", timeout_s=30)
    for _ in range(2):
        fetched = await workspace.exec(["python3", "-c", FETCH])
        assert fetched.stdout == "seed\n", fetched
    await server.wait_for(r"(?s)GET /seed.txt.*GET /seed.txt", timeout_s=30)
    assert (await server.report()).running
    await server.stop()
    await server.stop()
    assert (await workspace.exec(["python3", "-c", FETCH])).exit_code != 0
    await refused(server.report(), FileRefused)


@workspace_check
async def a_command_dies_whole_beside_a_service_that_lives(workspace: Workspace) -> None:
    service = await workspace.start(["bash", "-c", f"{SLEEPER} echo ready; sleep 54321"])
    await service.wait_for("ready", timeout_s=30)
    for _ in range(3):
        assert (await bash(workspace, f"{SLEEPER} true")).exit_code == 0
        assert await sleepers(workspace) == 3  # the service's own, daemons included
    assert (await bash(workspace, f"{SLEEPER} sleep 60", timeout_s=1)).timed_out
    assert await sleepers(workspace) == 3
    await service.stop()
    assert await sleepers(workspace) == 0


@workspace_check
async def how_a_service_ended_and_what_it_said_can_be_read(workspace: Workspace) -> None:
    service = await workspace.start(["bash", "-c", "echo a; printf '\\xff'; exit 3"])
    report = await service.report()
    while report.running:
        await asyncio.sleep(0.02)
        report = await service.report()
    assert (report.exit_code, report.error, report.data) == (3, None, b"a\n\xff"), report
    brief = await workspace.start(["sleep", "60"], lifetime_s=0.5)
    while (report := await brief.report()).running:
        await asyncio.sleep(0.05)
    assert report.error == "timed_out", report
    await refused(workspace.start(["no-such-program"]), NotStarted)
    await refused(workspace.start(["true"], cwd="no/such/folder"), NotStarted)


@workspace_check
async def a_service_reads_what_it_is_sent(workspace: Workspace) -> None:
    service = await workspace.start(["sha256sum"], env={"LC_ALL": "C"})
    data = bytes(range(256)) * 1024
    await service.send(data)
    await service.close_input()
    seen = await service.wait_for("[0-9a-f]{64}", timeout_s=30)
    hashed = await workspace.exec(["sha256sum"], stdin=data)
    assert seen[0] == hashed.stdout.split()[0], seen
    await refused(service.send(b"more"), BrokenPipeError)


@workspace_check
async def a_log_keeps_its_end_and_says_where_it_starts(workspace: Workspace) -> None:
    service = await workspace.start(["bash", "-c", "seq 1000000; sleep 60"])
    await service.wait_for("\n1000000\n", timeout_s=60)
    report = await service.report()
    assert report.end == 6_888_896, report
    assert 0 < report.start < report.end, report
    last = await service.report(offset=report.end - 8)
    assert last.data == b"1000000\n", last


@workspace_check
async def a_fork_bomb_beside_a_service_ends_at_the_deadline(workspace: Workspace) -> None:
    service = await workspace.start(["sleep", "54321"])
    result = await bash(workspace, "f() { f | f & }; f 2>/dev/null; sleep 60", timeout_s=2)
    assert result.exit_code != 0, result
    assert await sleepers(workspace) == int((await service.report()).running)


@provider_check
async def services_end_with_their_workspace(provider: Provider) -> None:
    workspace = await provider.open(SPEC)
    service = await workspace.start(["sleep", "54321"])
    shell = await workspace.shell()
    await workspace.close()
    await refused(service.report(), WorkspaceGone)
    await refused(shell.run("true"), WorkspaceGone)
    async with opened(provider, SPEC) as second:
        assert await sleepers(second) == 0


@workspace_check
async def a_shell_keeps_its_state_from_command_to_command(workspace: Workspace) -> None:
    shell = await workspace.shell(env={"GIVEN": "yes"})
    for command in ("cd pkg", "export X=5", "f() { echo $1$X; }", "sleep 54321 &", "read Y"):
        await shell.run(command)
    seen = await shell.run("pwd; f a; echo $GIVEN; jobs -p | wc -l; echo err >&2; (exit 7)")
    assert seen.stdout == "/workspace/pkg\na5\nyes\n1\n", seen
    assert (seen.exit_code, seen.stderr, seen.error) == (7, "err\n", None), seen
    assert await sleepers(workspace) == 1  # commands beside it spare its jobs
    broken = await shell.run("echo 'unclosed")
    assert broken.exit_code != 0, broken
    long = await shell.run(f"echo {'x' * 100_000} | wc -c; seq 100000")
    assert long.stdout.startswith("100001\n1\n"), long.stdout[:20]
    assert long.truncated, long
    assert (await shell.run(r"printf '\xff'")).streams[0] == b"\xff"
    await shell.close()
    assert await sleepers(workspace) == 0


@workspace_check
async def a_shell_outlives_its_command_s_deadline_where_it_can(workspace: Workspace) -> None:
    shell = await workspace.shell()
    await shell.run("X=5")
    late = await shell.run("echo early; sleep 60; echo late", timeout_s=0.7)
    assert (late.error, late.timed_out) == ("timed_out", True), late
    assert late.stdout.startswith("early\n"), late
    assert shell.alive
    assert (await shell.run("echo $X")).stdout == "5\n"
    stuck = await shell.run("while :; do :; done", timeout_s=0.7)
    assert (stuck.timed_out, shell.alive) == (True, False), stuck
    assert (await shell.run("true")).error == "not_started"
    other = await workspace.shell()
    assert (await other.run("exit 4")).exit_code == 4
    assert not other.alive


@workspace_check
async def a_terminal_takes_keys_and_shows_a_screen(workspace: Workspace) -> None:
    terminal = await workspace.terminal(
        ["bash", "--norc"], rows=10, columns=40, env={"PS1": "ready> "}
    )
    await terminal.wait_for_screen("^ready>", timeout_s=30)
    await terminal.send_keys("echo a; stty size; tty | cut -c1-8", "Enter")
    screen = await terminal.wait_for_screen(r"^/dev/pts", timeout_s=30)
    assert "10 40" in screen.lines, screen.text
    await terminal.send_keys("echo now; cat", "Enter")
    await terminal.wait_for_screen(r"^now", timeout_s=30)
    await terminal.send_keys("typed", "Enter")
    await terminal.wait_for_screen(r"^typed\ntyped", timeout_s=30)
    await terminal.send_keys("C-c")
    await terminal.wait_for_screen(r"^\^C\nready>", timeout_s=30)
    await terminal.resize(20, 60)
    await terminal.send_keys("clear; stty size", "Enter")
    screen = await terminal.wait_for_screen(r"^20 60$", timeout_s=30)
    assert "typed" not in screen.text, screen.text
    await terminal.send_keys("C-d")
    while (await terminal.report()).running:
        await asyncio.sleep(0.02)


@workspace_check
async def no_more_services_run_than_allowed(workspace: Workspace) -> None:
    running = [await workspace.start(["sleep", "54321"]) for _ in range(16)]
    await refused(workspace.start(["sleep", "54321"]), FileRefused)
    await running[0].stop()
    await workspace.start(["sleep", "54321"])
    assert await sleepers(workspace) == 16
