"""Every way in which the loop ends, each one provoked in a real workspace."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import pytest

from rollmill.model import Message, ToolCall
from rollmill.model.chat import render
from rollmill.model.tokenizer import Tokenizer
from rollmill.pipelines.rollout.agent import Agent
from rollmill.pipelines.rollout.authored import ScriptedPolicy
from rollmill.pipelines.rollout.policy import Completion, ContextOverflow, PolicyError
from rollmill.pipelines.rollout.transcript import Transcript
from rollmill.pipelines.task import Budget
from rollmill.pipelines.trajectory import Status
from rollmill.workspaces import Workspace, open_provider, opened

from .handmade import bash, bug_task

pytestmark = pytest.mark.docker

SUBMIT = ToolCall(name="submit")
CHATTER = Message(role="assistant", content="I think I am done.")


def does(*calls: ToolCall) -> Message:
    return Message(role="assistant", reasoning="so", tool_calls=calls)


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    provider = open_provider("docker")
    async with opened(provider, bug_task().workspace) as opened_workspace:
        yield opened_workspace
    await provider.close()


async def play(
    workspace: Workspace,
    script: Sequence[Message | Completion | PolicyError],
    budget: Budget | None = None,
    delay_s: float = 0.0,
) -> tuple[Status, Transcript]:
    log = Transcript()
    policy = ScriptedPolicy(script, delay_s=delay_s)
    return await Agent().run(bug_task(budget=budget), policy, workspace, log, seed=1), log


async def test_calls_run_in_order_and_nothing_runs_after_submit(workspace: Workspace) -> None:
    calls = (bash("echo 1 >> f"), bash("cat f"), SUBMIT, bash("echo 2 >> f"))
    status, log = await play(workspace, [does(*calls)])
    assert status == "submitted"
    roles = [message.role for message in log.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert log.messages[-1].content == "1"
    assert await workspace.get("f", max_bytes=10) == b"1\n"


async def test_thinking_stays_in_the_history(workspace: Workspace) -> None:
    _, log = await play(workspace, [does(bash("true")), does(SUBMIT)])
    assert [message.reasoning for message in log.messages if message.role == "assistant"] == [
        "so",
        "so",
    ]


async def test_running_out_of_turns_is_a_step_limit(workspace: Workspace) -> None:
    status, log = await play(workspace, [does(bash("true"))] * 3, Budget(max_turns=2))
    assert (status, len(log.turns)) == ("step_limit", 2)


async def test_only_unusable_replies_in_a_row_are_a_format_limit(workspace: Workspace) -> None:
    bad = Completion(message=CHATTER, format_error="expected </think>, got the end")
    good = does(bash("true"))
    script: list[Message | Completion] = [bad, CHATTER, good, CHATTER, bad, CHATTER, good]
    status, log = await play(workspace, script)
    assert (status, len(log.turns)) == ("format_limit", 6)
    told = [message.content for message in log.messages if message.role == "user"][1:]
    assert told[0] == "Your reply could not be used: expected </think>, got the end"
    assert "call a tool, or `submit`" in told[1]
    assert [turn.format_error is None for turn in log.turns] == [i == 2 for i in range(6)]


async def test_a_cut_reply_is_told_so(workspace: Workspace) -> None:
    cut = Completion(message=CHATTER, format_error="no end", finish_reason="length")
    _, log = await play(workspace, [cut, does(SUBMIT)])
    assert "cut at its token limit" in log.messages[3].content


async def test_a_turn_that_reaches_the_tokens_still_acts_and_is_the_last(
    workspace: Workspace,
) -> None:
    reply = Completion(message=does(bash("echo x > f")), total_tokens=100)
    status, log = await play(workspace, [reply] * 2, Budget(max_tokens=100))
    assert (status, len(log.turns)) == ("token_limit", 1)
    assert await workspace.get("f", max_bytes=10) == b"x\n"


async def test_submitting_with_the_last_token_is_submitted(workspace: Workspace) -> None:
    reply = Completion(message=does(SUBMIT), prompt_ids=(1,) * 60, completion_ids=(2,) * 60)
    status, _ = await play(workspace, [reply], Budget(max_tokens=100))
    assert status == "submitted"


async def test_a_full_context_is_a_token_limit(workspace: Workspace) -> None:
    status, _ = await play(workspace, [does(bash("true")), ContextOverflow("too long")])
    assert status == "token_limit"


async def test_a_policy_failure_passes_through_with_what_was_done_kept(
    workspace: Workspace,
) -> None:
    log = Transcript()
    policy = ScriptedPolicy([does(bash("echo hi")), PolicyError("no answer")])
    with pytest.raises(PolicyError, match="no answer"):
        await Agent().run(bug_task(), policy, workspace, log, seed=1)
    assert log.messages[-1].content == "hi"
    assert len(log.turns) == 1


@pytest.mark.parametrize("slow", ["model", "command"])
async def test_time_runs_out_whoever_is_slow(workspace: Workspace, slow: str) -> None:
    began = time.monotonic()
    status, _ = await play(
        workspace,
        [does(bash("sleep 30" if slow == "command" else "true"))] * 2,
        Budget(time_limit_s=1.0),
        delay_s=30.0 if slow == "model" else 0.0,
    )
    assert status == "time_limit"
    assert time.monotonic() - began < 8
    assert (await workspace.exec(["true"])).exit_code == 0


async def test_the_system_message_is_short_and_complete(workspace: Workspace) -> None:
    _, log = await play(workspace, [does(SUBMIT)])
    system = log.messages[0].content
    assert "/workspace" in system
    assert "16 turns" in system
    assert len(system.split()) < 100


async def test_the_turns_of_an_episode_are_one_path_of_tokens(workspace: Workspace) -> None:
    tokenizer, log = Tokenizer.train(["echo hello\n"] * 3, vocab_size=300), Transcript()
    script: list[Message] = [
        does(bash("cat calc.py"), bash("echo ü")),
        CHATTER,
        does(bash("true")),
        does(SUBMIT),
    ]
    policy = ScriptedPolicy(script, tokenizer=tokenizer)
    assert await Agent().run(bug_task(), policy, workspace, log, seed=1) == "submitted"
    assert [turn.parent for turn in log.turns] == [None, 0, 1, 2]
    path = [id_ for turn in log.turns for id_ in (*turn.prompt_ids, *turn.completion_ids)]
    specs = Agent().specs
    whole = render(log.messages, specs, tokenizer, add_generation_prompt=False)
    assert path == whole[: len(path)]
