"""A recycled workspace is a new one to every probe, and whatever is in doubt is thrown away."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.workspaces import (
    DockerProvider,
    ExecResult,
    PooledProvider,
    Workspace,
    WorkspaceGone,
    WorkspaceSpec,
    leftovers,
    opened,
)
from rollmill.workspaces.channel import RunnerWorkspace
from rollmill.workspaces.conformance import SMALL, SPEC

pytestmark = pytest.mark.docker

PROBE = (Path(__file__).parent / "probe_state.py").read_text()
"""Prints what a command can see of its workspace, as JSON."""


def libc(call: str) -> str:
    """A command that calls the C library."""
    return f'python3 -c "import ctypes; ctypes.CDLL(None).{call}"'


HOSTILE = (
    "echo x > seed.txt; rm -rf pkg; mkdir -p a/b/c; echo y > a/b/c/d",
    "touch $'new\\nline' ' ' \"$(printf '\\xff\\xfe')\" ~/.bashrc ~/.profile /tmp/x /dev/shm/x",
    "mkdir locked; touch locked/in; chmod 000 locked; chmod 000 /workspace /home/agent",
    "chmod 7777 /workspace /home/agent",
    "touch -d 2099-01-01 /workspace",
    "ln -s /etc/passwd link; ln -s / root; ln seed.txt hard; mkfifo pipe; ln -s loop loop",
    "python3 -c 'import os; os.mkdir(\"q\"); os.setxattr(\"/workspace\", \"user.mark\", b\"1\")'",
    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/tmp/sock\")'",
    "rm -rf /tmp/.output; mv /tmp/.output /tmp/mine; mkdir -p /tmp/.output; chmod 0 /tmp/.output",
    "chmod 000 /dev/null /dev/zero; rm -f /dev/null; chown 1000 /dev/null",
    "seq 100000; seq 100000 >&2",
    "for i in $(seq 12); do mkdir d; cd d; done; touch deep",
    "for i in $(seq 300); do : > f$i; done",
    "head -c 100M /dev/zero > full; head -c 100M /dev/zero > /tmp/full",
    "(setsid sleep 300 &) ; (trap '' TERM HUP INT; sleep 300 & disown) ; sleep 0.01",
    "python3 -c 'import os, time; os.fork() or os.setsid() or os.fork() or time.sleep(300)'",
    "exec 9> held; rm held; (sleep 300 >&9 &)",
    "kill -STOP 1; kill -9 -1",
    "ulimit -n 16; umask 000; cd /tmp; export EVIL=1; alias ls=rm; exec sleep 300",
    libc("shmget(77, 4096, 0o1666)"),
    libc("msgget(78, 0o1666)"),
    libc("mq_open(b'/q', 0o102, 0o666, None)"),
    libc("shm_open(b'/s', 0o102, 0o666)"),
    """python3 - <<< '
import socket
s = socket.create_server(("127.0.0.1", 8000)); c = socket.create_connection(("127.0.0.1", 8000))
a, _ = s.accept(); a.close(); c.close(); s.close()
'""",
    "python3 - <<< 'import fcntl, array, os; fcntl.ioctl(os.open(\".\", 0), 0x40086602, "
    "array.array(\"L\", [0xC0]))'",
)  # fmt: skip
"""Each leaves something behind, if it can."""


@dataclass
class Pool:
    """A pool with a loop of its own, for tests that are not coroutines."""

    runner: asyncio.Runner
    provider: PooledProvider
    fresh: object
    """What the probe sees in a workspace that nobody used."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    async def seen_fresh(provider: PooledProvider) -> object:
        async with opened(provider, SPEC, fresh=True) as workspace:
            return await probed(workspace)

    with asyncio.Runner() as runner:
        provider = PooledProvider(DockerProvider(run_id=f"pool-{os.getpid()}"))
        try:
            fresh = runner.run(seen_fresh(provider))
            yield Pool(runner=runner, provider=provider, fresh=fresh)
        finally:
            runner.run(provider.close())
    assert leftovers(f"pool-{os.getpid()}") == []


async def probed(workspace: Workspace) -> object:
    found = await workspace.exec(["python3", "-I", "-c", PROBE])
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


async def name_of(workspace: Workspace) -> str:
    """The same name, the same container."""
    return (await workspace.exec(["cat", "/etc/hostname"])).stdout


async def attack(workspace: Workspace, script: str) -> ExecResult:
    return await workspace.exec(["bash", "-c", script], timeout_s=1.0)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(scripts=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=3))
def test_after_hostile_scripts_the_next_workspace_is_as_new(
    pool: Pool, scripts: Sequence[str]
) -> None:
    async def use_and_look_again() -> object:
        async with opened(pool.provider, SPEC) as workspace:
            for script in scripts:
                await attack(workspace, script)
        async with opened(pool.provider, SPEC) as workspace:
            return await probed(workspace)

    assert pool.runner.run(use_and_look_again()) == pool.fresh


def test_after_each_hostile_script_the_next_workspace_is_as_new(pool: Pool) -> None:
    async def look_again(script: str) -> tuple[bool, object]:
        async with opened(pool.provider, SPEC) as workspace:
            name = await name_of(workspace)
            await attack(workspace, script)
        async with opened(pool.provider, SPEC) as workspace:
            return name == await name_of(workspace), await probed(workspace)

    recycled = 0
    for script in HOSTILE:
        same, seen = pool.runner.run(look_again(script))
        assert seen == pool.fresh, script
        recycled += same
    assert recycled > len(HOSTILE) / 2  # else nothing was shown


DOUBTED = {
    "shared memory": libc("shmget(7, 4096, 0o1666)"),
    "a port still held": HOSTILE[-2],
    "an attribute of a folder": HOSTILE[6],
}


@pytest.mark.parametrize("what", DOUBTED)
def test_what_cannot_be_undone_is_thrown_away(pool: Pool, what: str) -> None:
    async def names() -> tuple[str, str]:
        async with opened(pool.provider, SPEC) as workspace:
            first = await name_of(workspace)
            assert (await attack(workspace, DOUBTED[what])).exit_code == 0
        async with opened(pool.provider, SPEC) as workspace:
            return first, await name_of(workspace)

    before = pool.provider.counts["doubted"]
    first, second = pool.runner.run(names())
    assert first != second
    assert pool.provider.counts["doubted"] == before + 1


RESET = """python3 - <<< '
import socket, struct
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    s = socket.create_server((host, 8000), family=family)
    c = socket.create_connection((host, 8000)); a, _ = s.accept()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close(); a.close(); s.close()
'"""
"""Connections that end by a reset, and so leave nothing in the kernel's tables."""


def test_tcp_that_left_nothing_costs_no_workspace_and_hides_nothing_later(pool: Pool) -> None:
    async def names() -> list[str]:
        found = []
        for script in ("true", RESET, HOSTILE[-2], "true"):
            async with opened(pool.provider, SPEC) as workspace:
                found.append(await name_of(workspace))
                assert (await attack(workspace, script)).exit_code == 0
        return found

    untouched, reset, held, after = pool.runner.run(names())
    assert untouched == reset == held != after


@pytest.fixture
async def own() -> AsyncIterator[PooledProvider]:
    run_id = f"own-pool-{os.getpid()}"
    provider = PooledProvider(DockerProvider(run_id=run_id), ahead=2, reuses=2)
    yield provider
    await provider.close()
    assert leftovers(run_id) == []


async def used(provider: PooledProvider, *, fresh: bool = False) -> str:
    async with opened(provider, SPEC, fresh=fresh) as workspace:
        return await name_of(workspace)


async def test_a_workspace_is_used_again_and_not_for_ever(own: PooledProvider) -> None:
    own.expect(SPEC, 9)
    names = [await used(own) for _ in range(4)]
    assert names[0] == names[1]
    assert names[1] != names[2] == names[3]
    assert (own.counts["recycled"], own.counts["worn"]) == (2, 2)


async def test_nobody_was_in_a_fresh_one_before_and_nobody_is_after(own: PooledProvider) -> None:
    names = [await used(own, fresh=fresh) for fresh in (False, True, False, True, True)]
    assert names[0] == names[2]
    assert len(set(names)) == 4


async def test_a_schedule_is_prepared_and_not_more_than_it(own: PooledProvider) -> None:
    own.expect(SPEC, 3)
    await until(lambda: own.counts["started"] == 2)  # as many as are kept ahead
    for _ in range(3):
        await used(own, fresh=True)
    assert own.counts["ahead"] == own.counts["started"] == 3


async def test_other_specs_of_the_same_kind_get_their_own_seed_and_environment(
    own: PooledProvider,
) -> None:
    first = await used(own)
    other = WorkspaceSpec(image="python", env={"MINE": "yes"}, limits=SMALL)
    async with opened(own, other) as workspace:
        seen = await workspace.exec(["bash", "-c", "ls; echo $FROM_SPEC $MINE"])
        assert (seen.stdout, await name_of(workspace)) == ("yes\n", first)
    async with opened(own, replace(other, limits=replace(SMALL, pids=63))) as workspace:
        assert await name_of(workspace) != first


async def test_what_is_held_after_its_close_reaches_nobody(own: PooledProvider) -> None:
    mine = await own.open(SPEC)
    name = await name_of(mine)
    await mine.close()
    async with opened(own, SPEC) as theirs:
        assert await name_of(theirs) == name
        with pytest.raises(WorkspaceGone, match="closed"):
            await mine.put("spy", b"")
        await mine.close()
        assert (await theirs.exec(["ls", "spy"])).exit_code != 0


async def test_services_end_with_their_use_and_reach_nobody_afterwards(
    own: PooledProvider,
) -> None:
    async with opened(own, SPEC) as mine:
        name = await name_of(mine)
        service = await mine.start(["sleep", "54321"])
        shell, terminal = await mine.shell(), await mine.terminal()
        await shell.run("sleep 54321 &")
        await terminal.send_keys("sleep 54321", "Enter")
    async with opened(own, SPEC) as theirs:
        assert await name_of(theirs) == name
        assert (await theirs.exec(["pgrep", "-c", "-f", "sleep|bash"])).stdout == "0\n"
        for late in (service.report(), shell.run("touch spy"), terminal.screen()):
            with pytest.raises(WorkspaceGone, match="closed"):
                await late


async def test_one_that_died_while_it_waited_is_passed_over(own: PooledProvider) -> None:
    brief = replace(SPEC, limits=replace(SMALL, lifetime_s=1.5))
    async with opened(own, brief) as workspace:
        first = await name_of(workspace)
    await asyncio.sleep(2.5)
    async with opened(own, brief) as workspace:
        assert await name_of(workspace) != first


class Starting(DockerProvider):
    """Counts how many are being opened at once."""

    now = most = 0

    async def open(self, spec: WorkspaceSpec, *, fresh: bool = False) -> RunnerWorkspace:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().open(spec, fresh=fresh)
        finally:
            self.now -= 1


async def test_no_more_are_started_at_once_than_allowed() -> None:
    inner = Starting(run_id=f"starts-{os.getpid()}")
    provider = PooledProvider(inner, starts=2)
    provider.expect(SPEC, 8)
    opening = await asyncio.gather(*(provider.open(SPEC) for _ in range(4)))
    await asyncio.gather(*(workspace.close() for workspace in opening))
    await provider.close()
    assert inner.most == 2


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)
