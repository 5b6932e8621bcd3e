"""Hostile code meets a limit each time: its neighbour answers as before, and so does its host."""

import asyncio
import contextlib
import gzip
import io
import os
import resource
import socket
import statistics
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from rollmill.workspaces import (
    MIB,
    BwrapProvider,
    DockerProvider,
    EngineUnavailable,
    FileRefused,
    Provider,
    Workspace,
    opened,
)
from rollmill.workspaces.bwrap import writable_cgroups
from rollmill.workspaces.conformance import SMALL, SPEC, bash

from .attacks import ATTACKS

KNOWN_GAPS = {
    ("bwrap", "inode filler"): "bubblewrap sets no inode limit; the memory limit counts them",
    ("bwrap", "inode filler in shared memory"): "the same",
    ("bwrap", "the runner's limits"): "one user: a command can spoil its own workspace's runner",
    ("bwrap", "the threads of whoever starts commands"): "the same",
}
if not writable_cgroups():
    for name in ("memory in many processes", "memory in files", "cpu"):
        KNOWN_GAPS["bwrap", name] = "rlimits count each process alone, and no files"
WARM_CALLS = 15
GROWN = 3
"""Commands after which a workspace starts the next one in its usual way."""


@dataclass
class Scene:
    """A provider with a loop of its own, and a neighbour who minds its own business."""

    loop: asyncio.Runner
    provider: Provider
    neighbour: Workspace
    usual_s: float
    """Its median answer before anybody attacked."""


async def answer_s(workspace: Workspace) -> float:
    began = time.monotonic()
    assert (await workspace.exec(["true"], timeout_s=60)).exit_code == 0
    return time.monotonic() - began


PROVIDERS = [pytest.param(DockerProvider, marks=pytest.mark.docker), BwrapProvider]


@pytest.fixture(scope="module", params=PROVIDERS, ids=["docker", "bwrap"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    async def begin(provider: Provider) -> tuple[Workspace, float]:
        neighbour = await provider.open(SPEC)
        return neighbour, statistics.median([await answer_s(neighbour) for _ in range(WARM_CALLS)])

    with asyncio.Runner() as loop:
        provider: Provider = request.param(run_id=f"attacks-{os.getpid()}")
        try:
            neighbour, usual_s = loop.run(begin(provider))
        except EngineUnavailable as error:
            loop.run(provider.close())
            pytest.skip(str(error))
        yield Scene(loop=loop, provider=provider, neighbour=neighbour, usual_s=usual_s)
        loop.run(provider.close())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_held_and_the_neighbour_does_not_feel_it(scene: Scene, name: str) -> None:
    if (scene.provider.name, name) in KNOWN_GAPS:
        pytest.skip(KNOWN_GAPS[scene.provider.name, name])
    attack = ATTACKS[name]

    async def under_attack() -> None:
        async with opened(scene.provider, SPEC) as workspace:
            for _ in range(GROWN):
                await workspace.exec(["true"])
            running = asyncio.create_task(workspace.exec(attack.argv, timeout_s=attack.timeout_s))
            while not running.done():
                await answer_s(scene.neighbour)
                await asyncio.sleep(0.05)
            result = await running
            assert "BREACH" not in result.stdout, result
            assert attack.held(result), result
            alive = await bash(workspace, "ps -e -o args= | grep -c '[s]leep 4321'")
            assert alive.stdout == "0\n", alive
        best = min([await answer_s(scene.neighbour) for _ in range(WARM_CALLS)])
        assert best < 3 * scene.usual_s + 0.05, (best, scene.usual_s)

    scene.loop.run(under_attack())


def test_who_kills_everybody_at_once_kills_nobody_who_starts_commands(scene: Scene) -> None:
    async def killing() -> None:
        async with opened(scene.provider, SPEC) as workspace:
            for number in range(30):
                await workspace.exec(["sh", "-c", "kill -9 -1"])
                alive = await workspace.exec(["sh", "-c", f"nice; echo {number}"])
                assert (alive.exit_code, alive.stdout) == (0, f"0\n{number}\n"), alive

    scene.loop.run(killing())


def test_burning_every_cpu_gets_no_more_than_the_share(scene: Scene) -> None:
    if (scene.provider.name, "cpu") in KNOWN_GAPS:
        pytest.skip(KNOWN_GAPS[scene.provider.name, "cpu"])
    burn = (
        "import os, time\nend = time.monotonic() + 3\n"
        "for _ in range(4):\n  if os.fork() == 0:\n    while time.monotonic() < end: pass\n"
        "    os._exit(0)\n"
        "for _ in range(4): os.wait()\nused = os.times()\n"
        "print(used.children_user + used.children_system)"
    )

    async def burnt() -> float:
        async with opened(scene.provider, replace(SPEC, limits=replace(SMALL, cpus=0.25))) as one:
            result = await one.exec(["python3", "-c", burn], timeout_s=60)
            return float(result.stdout) / result.duration_s

    assert scene.loop.run(burnt()) < 0.25 * 1.4


def test_no_address_of_the_host_is_reachable(scene: Scene) -> None:
    probe = (
        "import socket, sys\n"
        "for host in sys.argv[3:]:\n"
        "  try: socket.create_connection((host, int(sys.argv[1])), 3); print('BREACH', host)\n"
        "  except OSError: pass\n"
        "try: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[2]); print('BREACH unix')\n"
        "except OSError as error: print(error.strerror)"
    )
    own = {"127.0.0.1", "::1", "0.0.0.0", "172.17.0.1"}
    with contextlib.suppress(OSError):
        own |= {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), 0)}

    async def reach() -> str:
        with socket.create_server(("", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
            name = f"rollmill-{os.getpid()}"
            abstract.bind(f"\0{name}")
            abstract.listen()
            with socket.create_connection(("127.0.0.1", tcp.getsockname()[1])):
                pass  # it answers us
            port = str(tcp.getsockname()[1])
            argv = ["python3", "-c", probe, port, name, *sorted(own)]
            return (await scene.neighbour.exec(argv)).stdout

    assert scene.loop.run(reach()) == "Connection refused\n"


def bomb_of(kind: str) -> bytes:
    """A small gzip that unpacks to a gigabyte, in the body of a tar or in its header."""
    info = tarfile.TarInfo("x")
    info.size = 1024 * MIB
    info.type = {"body": tarfile.REGTYPE, "header": tarfile.XHDTYPE}[kind]
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed:
        packed.write(info.tobuf())
        for _ in range(64):
            packed.write(bytes(16 * MIB))
    return out.getvalue()


@pytest.fixture(scope="module", params=["body", "header"])
def bomb(request: pytest.FixtureRequest) -> bytes:
    return bomb_of(request.param)


def test_a_tar_bomb_is_refused_before_it_unpacks(scene: Scene, bomb: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def lay() -> None:
        with pytest.raises(FileRefused, match="unpacks to more"):
            await scene.neighbour.put_tree(bomb)
        await answer_s(scene.neighbour)

    scene.loop.run(lay())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 200 * MIB
