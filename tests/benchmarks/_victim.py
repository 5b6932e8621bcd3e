"""A process that opens workspaces without end, to be killed: what is left of them is counted."""

from __future__ import annotations

import asyncio
import sys

from rollmill.workspaces import DockerProvider, PooledProvider, Provider, WorkspaceSpec, opened


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


if __name__ == "__main__":
    asyncio.run(main())
