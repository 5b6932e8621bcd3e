from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rollmill.model import Message, ToolCall
from rollmill.model.chat import parse_completion
from rollmill.model.tokenizer import Tokenizer
from rollmill.pipelines.rollout.authored import AuthoredPolicy, ScriptedPolicy
from rollmill.pipelines.rollout.policies import POLICIES, UnknownPolicy, open_policy
from rollmill.pipelines.rollout.policy import PolicyError, TurnRequest


async def test_policies_open_by_name_several_at_once_and_close_twice() -> None:
    specs = ["gold", "null", "openai:http://localhost:1/v1#a#b", "gold"]
    policies = [open_policy(spec) for spec in specs]
    assert [policy.name for policy in policies] == specs
    for policy in policies:
        await policy.close()
        await policy.close()


@pytest.mark.parametrize("spec", ["golden", "", "gpt", "/tmp", "no/such/folder"])
def test_an_unknown_policy_names_the_choices(spec: str) -> None:
    with pytest.raises(UnknownPolicy) as refusal:
        open_policy(spec)
    assert all(name in str(refusal.value) for name in POLICIES)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("openai:", "openai:URL#MODEL"),
        ("openai:http://localhost", "openai:URL#MODEL"),
        ("openai:#m", "openai:URL#MODEL"),
        ("openai:localhost#m", "http"),
        ("gold:fast", "expected nothing after the name"),
    ],
)
def test_a_policy_without_a_part_says_what_was_expected(spec: str, told: str) -> None:
    with pytest.raises(UnknownPolicy, match=told):
        open_policy(spec)


async def test_gold_performs_its_moves_and_then_only_submits(request_: TurnRequest) -> None:
    policy, moves = open_policy("gold"), request_.task.solution
    for turn in range(len(moves) + 2):
        message = (await policy.complete(replace(request_, turn_index=turn))).message
        if turn < len(moves):
            assert (message.reasoning, message.tool_calls) == (
                moves[turn].thought,
                moves[turn].calls,
            )
        else:
            assert [call.name for call in message.tool_calls] == ["submit"]


async def test_authored_tokens_read_back_as_what_was_authored(request_: TurnRequest) -> None:
    tokenizer = Tokenizer.train(["echo hello\n"] * 3, vocab_size=300)
    call = ToolCall(name="bash", arguments={"command": "echo '</invoke>' [e~[ ü"})
    said = Message(role="assistant", reasoning="I say so.", tool_calls=(call,))
    policy = AuthoredPolicy("one", lambda _: said, tokenizer=tokenizer)
    got = await policy.complete(request_)
    read, error = parse_completion(got.completion_ids, request_.tools, tokenizer)
    assert (error, read) == (None, replace(said, token_ids=got.completion_ids))
    assert (got.message, got.logprobs) == (read, ())
    assert policy.tokenizer == tokenizer.fingerprint
    assert len(got.prompt_ids) > len(got.completion_ids)


async def test_an_authored_call_that_no_tool_takes_is_a_format_error(
    request_: TurnRequest,
) -> None:
    said = Message(role="assistant", tool_calls=(ToolCall(name="bash"),))
    got = await ScriptedPolicy([said]).complete(request_)
    assert got.format_error is not None
    assert "command" in got.format_error
    assert got.message.tool_calls == ()


async def test_a_script_that_ends_too_early_says_so(request_: TurnRequest) -> None:
    with pytest.raises(PolicyError, match="script more replies"):
        await ScriptedPolicy([]).complete(request_)


def test_a_folder_is_no_policy_unless_it_holds_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnknownPolicy):
        open_policy(str(tmp_path))
