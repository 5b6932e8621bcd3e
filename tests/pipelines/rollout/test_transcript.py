"""The turn invariants, with a real tokenizer behind the rendering."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rollmill.model import Message, ToolCall
from rollmill.model.chat import render, render_assistant
from rollmill.model.tokenizer import Tokenizer
from rollmill.pipelines.rollout.policy import Completion
from rollmill.pipelines.rollout.tools import TOOLS
from rollmill.pipelines.rollout.transcript import Transcript
from rollmill.pipelines.trajectory import Turn

SPECS = tuple(tool.spec for tool in TOOLS.values())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["def add(a, b):\n    return a + b\n"] * 3, vocab_size=300)


def said(text: str) -> Message:
    call = ToolCall(name="bash", arguments={"command": f"echo {text}"})
    return Message(role="assistant", reasoning=f"I say {text}", tool_calls=(call,))


def completed(log: Transcript, message: Message, tokenizer: Tokenizer) -> Completion:
    prompt = render(log.messages, SPECS, tokenizer, add_generation_prompt=True)
    return Completion(
        message=message,
        prompt_ids=tuple(prompt),
        completion_ids=tuple(render_assistant(message, tokenizer)),
    )


def full_prompt(turns: list[Turn], index: int) -> tuple[int, ...]:
    turn = turns[index]
    if turn.parent is None:
        return turn.prompt_ids
    parent = turns[turn.parent]
    return full_prompt(turns, turn.parent) + parent.completion_ids + turn.prompt_ids


def test_a_path_from_the_root_reproduces_what_the_sampler_saw(tokenizer: Tokenizer) -> None:
    log, seen = Transcript(), []
    log.say(Message(role="user", content="ünï <think> [e~["))
    for step in range(4):
        reply = completed(log, said(f"turn {step}"), tokenizer)
        seen.append(reply.prompt_ids)
        log.record(reply, format_error=None, policy_s=0.5)
        log.say(Message(role="tool", content=f"turn {step}"))
    assert [turn.parent for turn in log.turns] == [None, 0, 1, 2]
    assert [full_prompt(log.turns, index) for index in range(4)] == seen
    assert all(len(b) > len(a) for a, b in pairwise(seen))


def test_a_rewritten_history_starts_a_new_root(tokenizer: Tokenizer) -> None:
    log = Transcript()
    log.say(Message(role="user", content="one"))
    log.record(completed(log, said("a"), tokenizer), format_error=None, policy_s=0.0)
    log.messages[0] = Message(role="user", content="two")
    reply = completed(log, said("b"), tokenizer)
    log.record(reply, format_error=None, policy_s=0.0)
    assert log.turns[1].parent is None
    assert log.turns[1].prompt_ids == reply.prompt_ids


def test_a_branch_extends_the_longest_turn_that_it_begins_with() -> None:
    log = Transcript()
    for prompt, completion in [((1,), (2,)), ((1, 2, 3), (4,)), ((1, 2, 9), (5,)), ((7,), (8,))]:
        reply = Completion(message=said("x"), prompt_ids=prompt, completion_ids=completion)
        log.record(reply, format_error=None, policy_s=0.0)
    assert [turn.parent for turn in log.turns] == [None, 0, 0, None]
    assert [turn.prompt_ids for turn in log.turns] == [(1,), (3,), (9,), (7,)]


def test_half_known_tokens_are_left_out_whole() -> None:
    log = Transcript()
    for reply in (
        Completion(message=said("x"), completion_ids=(1, 2), logprobs=(-0.1, -0.2)),
        Completion(message=said("y"), prompt_ids=(3,)),
        Completion(message=said("z"), prompt_ids=(3,), completion_ids=(4,), logprobs=(-1.0, -2.0)),
    ):
        log.record(reply, format_error=None, policy_s=0.0)
    assert [(t.prompt_ids, t.completion_ids, t.logprobs) for t in log.turns] == [
        ((), (), ()),
        ((), (), ()),
        ((3,), (4,), ()),
    ]
