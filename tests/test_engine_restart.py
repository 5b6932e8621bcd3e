"""An engine that is restarted in the middle of a run costs tries and not the run."""

import asyncio
import gc
import json
from pathlib import Path

import pytest

from rollmill.flows.episodes import Crew, plan_shards, roll_out
from rollmill.model import Message, ToolCall
from rollmill.pipelines.dataset.shards import read_shard
from rollmill.pipelines.dataset.store import Run
from rollmill.pipelines.rollout.agent import Agent
from rollmill.pipelines.rollout.authored import ScriptedPolicy
from rollmill.pipelines.rollout.episode import Stages
from rollmill.pipelines.task import Provenance, Task
from rollmill.verifiers import VerifierSpec
from rollmill.workspaces import DockerProvider, PooledProvider, WorkspaceSpec

from .engines import OwnEngine

pytestmark = [
    pytest.mark.docker,
    # the SDK leaves its sockets to an engine that is gone to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASK = Task(
    family="hand-made",
    domain="cowork",
    instruction='Write {"n": 1} to answer.json.',
    workspace=WorkspaceSpec(image="python"),
    verifier=VerifierSpec(name="answer", params={"path": "answer.json"}),
    hidden={"expected.json": json.dumps({"n": {"value": 1}}).encode()},
    artifacts=("answer.json",),
    solution=(),
    provenance=Provenance(
        source="hand-made", licence="Apache-2.0", url="", seed=0, generator="t",
        generator_version="1",
    ),
)  # fmt: skip


def does(command: str) -> Message:
    call = ToolCall(name="bash", arguments={"command": command})
    return Message(role="assistant", tool_calls=(call,))


async def test_an_engine_restart_costs_tries_and_not_the_run(
    own_engines: tuple[OwnEngine, OwnEngine], tmp_path: Path
) -> None:
    engine = own_engines[0]
    submit = Message(role="assistant", tool_calls=(ToolCall(name="submit"),))
    policy = ScriptedPolicy([does("sleep 3.25"), does("""echo '{"n": 1}' > answer.json"""), submit])
    provider = PooledProvider(DockerProvider(run_id="restart", engine=engine.address))

    def at_work() -> bool:
        return any("sleep 3.25" in command for command in engine.commands())

    def restart() -> None:
        engine.stop()
        engine.start()

    with Run.open(tmp_path / "run", {}) as run:
        crew = Crew(
            run=run,
            provider=provider,
            agent=Agent(),
            image_digests=await provider.prepare(["python"]),
            run_id="restart",
            concurrency=3,
            stages=Stages(),
            retries=2,
        )
        (shard,) = plan_shards([TASK], [policy], group=3, seed=0, shard_size=3)
        running = asyncio.create_task(roll_out(0, shard, crew))
        while not await asyncio.to_thread(at_work):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(restart)
        assert await running == {"pass": 3}
    await provider.close()
    tries = [row["status"] for file in run.path.glob("attempts/*") for row in read_shard(file)]
    assert set(tries) == {"workspace_error"}
    assert engine.containers() == []
    gc.collect()
