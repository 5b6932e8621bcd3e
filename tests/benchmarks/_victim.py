"""A process that opens workspaces without end, is killed, and what is left of them is counted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

from rollmill.workspaces import (
    DockerProvider,
    PooledProvider,
    Provider,
    WorkspaceSpec,
    leftovers,
    opened,
)


async def work(provider: Provider) -> None:
    """Open one workspace after the other."""
    while True:
        async with opened(provider, WorkspaceSpec(image="python")) as workspace:
            await workspace.exec(["sleep", "0.05"])


async def main() -> None:
    """Three at a time, under the run id given."""
    provider = PooledProvider(DockerProvider(run_id=sys.argv[1]))
    await provider.prepare(["python"])
    print("ready", flush=True)
    await asyncio.gather(*(work(provider) for _ in range(3)))


def leaks_after_kill9(kills: int) -> int:
    """Containers that are there 20 s after a process that held some was killed. Blocks."""
    leaked, chance = 0, random.Random(0)
    for number in range(kills):
        run_id = f"bench-kill-{os.getpid()}-{number}"
        command = [sys.executable, __file__, run_id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            time.sleep(chance.uniform(0, 1.5))
            victim.send_signal(signal.SIGKILL)
        give_up = time.monotonic() + 20
        while (left := len(leftovers(run_id))) and time.monotonic() < give_up:
            time.sleep(0.2)
        leaked += left
    return leaked


if __name__ == "__main__":
    asyncio.run(main())
