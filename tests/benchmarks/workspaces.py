"""Workspaces of ours beside mini-swe-agent's DockerEnvironment and SWE-ReX's DockerDeployment.

Ours and the peers take turns in one run, on one engine, with our image; SWE-ReX's server is baked
into its own. The conformance tests run first, and nothing is measured on red. Peers come with the
extra `bench`. `--json` prints one object and nothing else; `--quick` takes smaller counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Protocol

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")

from rollmill.tests.benchmarks._victim import leaks_after_kill9
from rollmill.workspaces import (
    MIB,
    BwrapProvider,
    DockerProvider,
    Limits,
    PooledProvider,
    Provider,
    WorkspaceSpec,
    opened,
)
from rollmill.workspaces.engine import connect

logging.disable(logging.ERROR)  # the peers log to standard output, which is for the figures
ROOT = Path(__file__).parents[2]
TESTED = "a_failing or stdin_env or children_do or files_round_trip or many_workspaces"
IN_FLIGHT = 16
COMMANDS = 10
FILE = "x" * 99_999 + "\n"
SPEC = WorkspaceSpec(image="python", limits=Limits(memory_bytes=512 * MIB))
REX_SITE = "/opt/swerex"
TRUE = "true"
OPENINGS = ("cold", "pool", "bwrap", "bwrap_cold")
"""Of ours: from nothing; from the pool; bubblewrap's, where ten commands run in each, from the pool
that starts the next one meanwhile; the same from nothing."""


class Box(Protocol):
    """A place where commands run, as all three offer it."""

    async def run(self, script: str) -> None: ...
    async def put(self, path: str, text: str) -> None: ...
    async def get(self, path: str) -> str: ...


Opener = Callable[[], AbstractAsyncContextManager[Box]]


class Ours:
    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace

    async def run(self, script: str) -> None:
        done = await self.workspace.exec(["bash", "-c", script])
        assert done.exit_code == 0, done

    async def put(self, path: str, text: str) -> None:
        await self.workspace.put(path, text.encode())

    async def get(self, path: str) -> str:
        return str((await self.workspace.get(path, max_bytes=MIB)).decode())


class Mini:
    """It has no files of its own: they go through `docker cp`."""

    def __init__(self, image: str) -> None:
        from minisweagent.environments.docker import DockerEnvironment  # an extra: not for --help

        self.environment = DockerEnvironment(image=image, cwd="/tmp")

    async def run(self, script: str) -> None:
        done = await asyncio.to_thread(self.environment.execute, {"command": script})
        assert done["returncode"] == 0, done

    async def put(self, path: str, text: str) -> None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            await docker("cp", file.name, f"{self.environment.container_id}:{path}")

    async def get(self, path: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            await docker("cp", f"{self.environment.container_id}:{path}", f"{folder}/file")
            return Path(folder, "file").read_text()

    async def close(self) -> None:
        """Remove it at once: its own way takes ten seconds in the background."""
        container, self.environment.container_id = self.environment.container_id, None
        await docker("rm", "-f", str(container))


class Rex:
    def __init__(self, deployment: Any) -> None:
        from swerex.runtime import abstract

        self.runtime, self.words = deployment.runtime, abstract

    async def run(self, script: str) -> None:
        command = self.words.Command(command=["bash", "-c", script], check=True, timeout=60)
        await self.runtime.execute(command)

    async def put(self, path: str, text: str) -> None:
        await self.runtime.write_file(self.words.WriteFileRequest(path=path, content=text))

    async def get(self, path: str) -> str:
        request = self.words.ReadFileRequest(path=path)
        return str((await self.runtime.read_file(request)).content)


async def docker(*arguments: str) -> None:
    """The command line, as the peers use it."""
    command = ["docker", *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


def openers(provider: Provider, image: str) -> dict[str, Opener]:
    """How each of the three opens a box."""
    from swerex.deployment.docker import DockerDeployment

    rex = rex_image(image)

    @asynccontextmanager
    async def ours() -> AsyncIterator[Box]:
        async with opened(provider, SPEC) as workspace:
            yield Ours(workspace)

    @asynccontextmanager
    async def mini_swe_agent() -> AsyncIterator[Box]:
        box = await asyncio.to_thread(Mini, image)
        try:
            yield box
        finally:
            await box.close()

    @asynccontextmanager
    async def swe_rex() -> AsyncIterator[Box]:
        deployment = DockerDeployment(image=rex, pull="never")
        try:
            await deployment.start()
            yield Rex(deployment)
        finally:
            await deployment.stop()

    return {"ours": ours, "mini_swe_agent": mini_swe_agent, "swe_rex": swe_rex}


def rex_image(base: str) -> str:
    """Our image with SWE-ReX's server in it, built once a version. Blocks."""
    client, _ = connect()
    tag = f"rollmill-bench/swe-rex:{version('swe-rex')}-{base.rpartition(':')[2][:16]}"
    try:
        if not client.images(name=tag):
            with tempfile.TemporaryDirectory() as folder:
                _fill(Path(folder), base)
                for line in client.build(path=folder, tag=tag, rm=True, decode=True):
                    assert "error" not in line, line
    finally:
        client.close()
    return tag


def _fill(folder: Path, base: str) -> None:
    """What the image is built from. The wheels are installed here, where a registry answers."""
    install = [
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "site"),
        "--python-version", "3.11", "--only-binary=:all:", "--root-user-action=ignore",
        f"--constraint={ROOT / 'constraints.txt'}", f"swe-rex=={version('swe-rex')}",
    ]  # fmt: skip
    subprocess.run(install, check=True, stdout=sys.stderr)
    start = f'#!/bin/sh\nexport PYTHONPATH={REX_SITE}\nexec python3 -m swerex "$@"\n'
    (folder / "swerex-remote").write_text(start)
    (folder / "swerex-remote").chmod(0o755)
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nCOPY site {REX_SITE}\nCOPY swerex-remote /usr/local/bin/\n"
    )


async def timed_ms(work: Awaitable[object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1e3


async def exec_ms(
    open_box: Mapping[str, Opener], rounds: int, *, at_a_turn: int
) -> dict[str, list[float]]:
    """Commands in a box that is open, each side some at a turn."""
    found: dict[str, list[float]] = {name: [] for name in open_box}
    async with AsyncExitStack() as stack:
        boxes = {name: await stack.enter_async_context(one()) for name, one in open_box.items()}
        for number in range(rounds + 3):
            for name, box in boxes.items():
                took = [await timed_ms(box.run(TRUE)) for _ in range(at_a_turn)]
                found[name] += took * (number >= 3)  # the first are warm-up
    return found


async def first_command_ms(open_box: Opener) -> float:
    """From nothing to the end of the first command."""
    began = time.perf_counter()
    async with open_box() as box:
        await box.run(TRUE)
        return (time.perf_counter() - began) * 1e3


async def open_ms(provider: Provider, *, commands: int = 0) -> float:
    """From the wish to a workspace that is ready to run; then some commands, not counted."""
    began = time.perf_counter()
    async with opened(provider, SPEC) as workspace:
        took = (time.perf_counter() - began) * 1e3
        for _ in range(commands):
            await workspace.exec(["bash", "-c", TRUE])
        return took


async def episodes_per_s(open_box: Opener, count: int, *, threads: bool) -> float:
    """Ten commands, one file in, one out; 16 in flight.

    Args:
        threads: each has a loop of its own, because its start sleeps in the loop it is given.
    """
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def episode() -> None:
        async with open_box() as box:
            await box.put("/tmp/in.txt", FILE)
            for _ in range(COMMANDS - 1):
                await box.run(TRUE)
            await box.run("cp /tmp/in.txt /tmp/out.txt")
            assert await box.get("/tmp/out.txt") == FILE

    async def one() -> None:
        async with slots:
            await (asyncio.to_thread(asyncio.run, episode()) if threads else episode())

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)


async def flatness(count: int) -> dict[str, Any]:
    """What many workspaces, opened and closed one after the other, leave in this process."""
    before = _descriptors()
    provider = PooledProvider(DockerProvider(run_id="bench-flat"))
    try:
        await provider.prepare(["python"])
        marks = []
        for number in range(count):
            async with opened(provider, SPEC, fresh=number % 25 == 0) as workspace:
                await workspace.exec(["true"])
            if number in (min(49, count // 2), count - 1):
                marks.append(_resident_mb())
    finally:
        await provider.close()
    grown = marks[-1] - marks[0]
    left = _descriptors() - before
    return {"workspaces": count, "memory_growth_mb": grown, "descriptors_left": left}


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def compared(found: Mapping[str, float], *, more_is_better: bool = False) -> dict[str, float]:
    """A figure with peers; a ratio over 1 means that ours is better."""
    ours = found["ours"]
    ratios = {
        f"ratio_{name}": ours / value if more_is_better else value / ours
        for name, value in found.items() if name != "ours"
    }  # fmt: skip
    return {**found, **ratios, "ratio": min(ratios.values())}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure."""
    quick = options.quick
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4 * IN_FLIGHT))
    provider = PooledProvider(DockerProvider(run_id="bench"), idle=IN_FLIGHT)
    cold, bwrap = DockerProvider(run_id="bench-cold"), BwrapProvider()
    bwrap_pool = PooledProvider(BwrapProvider(), reuses=1)
    try:
        image = (await provider.prepare(["python"]))["python"]
        open_box = await asyncio.to_thread(openers, provider, image)
        _say("commands")
        commands = await exec_ms(open_box, 4 if quick else 20, at_a_turn=COMMANDS)
        alone = await exec_ms(open_box, 20 if quick else 200, at_a_turn=1)
        _say("openings")
        peers = [name for name in open_box if name != "ours"]
        starts: dict[str, list[float]] = {name: [] for name in (*peers, *OPENINGS)}
        for _ in range(2 if quick else 15):
            for name in peers:
                starts[name].append(await first_command_ms(open_box[name]))
            starts["cold"].append(await open_ms(cold))
            starts["pool"] += [await open_ms(provider) for _ in range(3)]
            starts["bwrap_cold"] += [await open_ms(bwrap) for _ in range(3)]
            starts["bwrap"] += [await open_ms(bwrap_pool, commands=COMMANDS) for _ in range(3)]
        opening = {name: median(took) for name, took in starts.items()}
        started = {name: opening[name] for name in peers}
        _say("episodes")
        provider.expect(SPEC, IN_FLIGHT)
        rates = {
            name: await episodes_per_s(
                one,
                (64 if quick else 160) if name == "ours" else (4 if quick else 32),
                threads=name == "swe_rex",
            )
            for name, one in open_box.items()
        }
    finally:
        for one in (provider, cold, bwrap, bwrap_pool):
            await one.close()
    _say("many workspaces")
    return {
        "exec_ms_p50": compared({name: median(took) for name, took in commands.items()}),
        "exec_apart_ms_p50": compared({name: median(took) for name, took in alone.items()}),
        "acquire_ms_p50": compared({"ours": opening["pool"], **started}),
        "acquire_cold_ms_p50": compared({"ours": opening["cold"], **started}),
        "acquire_bwrap_ms_p50": opening["bwrap"],
        "acquire_bwrap_cold_ms_p50": opening["bwrap_cold"],
        "episodes_per_s": compared(rates, more_is_better=True),
        "flatness": await flatness(60 if quick else 500),
    }


def red() -> str:
    """Why nothing may be measured; empty = the tests pass."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/workspaces/test_conformance.py"]
    command += ["-k", f"docker and ({TESTED})", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout[-3000:]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Parse the flags, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the object alone")
    parser.add_argument("--quick", action="store_true", help="smaller counts, the same keys")
    parser.add_argument("--out", type=Path, help="also write the object there")
    options = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    if problem := red():
        sys.exit(f"the tests of what is measured are red:\n{problem}")
    found = asyncio.run(measure(options))
    _say("kills")
    found["leaks_after_kill9"] = leaks_after_kill9(2 if options.quick else 20)
    found |= {"load": round(load, 1), "seconds": round(time.monotonic() - began, 1)}
    text = json.dumps(found, indent=None if options.json else 2)
    if options.out:
        options.out.write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
