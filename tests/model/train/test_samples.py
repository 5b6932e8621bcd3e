import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import render, render_assistant
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.samples import Sample, samples_from_row, samples_from_text

TOOL = ToolSpec(name="bash", description="Run.", parameters={"type": "object", "properties": {}})
GIVEN = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="Fix it."),
    Message(role="assistant", reasoning="Look.", tool_calls=(ToolCall(name="bash"),)),
    Message(role="tool", content="boom"),
    Message(role="assistant", content="Done."),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["def f(): return 1\n"] * 5, 280)


def turn(parent: int, prompt: list[int], completion: list[int]) -> dict[str, Any]:
    return {"parent": parent, "prompt_ids": prompt, "completion_ids": completion}


def row(tokenizer: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    tool = {"name": TOOL.name, "description": TOOL.description, "parameters": TOOL.parameters}
    messages = [
        {
            "role": message.role,
            "content": message.content,
            "reasoning": message.reasoning,
            "tool_calls": [{"name": c.name, "arguments": "{}"} for c in message.tool_calls],
            "token_ids": [1, 2, 3],
        }
        for message in GIVEN
    ]
    return {
        "messages": messages,
        "tools": json.dumps([tool]),
        "turns": turns,
        "tokenizer": tokenizer,
    }


@given(st.lists(st.integers(-1, 8), min_size=1, max_size=9))
def test_every_sampled_token_is_learned_in_exactly_one_sample(
    tokenizer: Tokenizer, parents: list[int]
) -> None:
    # Turn i adds the prompt 10i and the completion 10i+1, 10i+2, so ids tell where they are from.
    turns = [
        turn(min(parent, index - 1), [10 * index], [10 * index + 1, 10 * index + 2])
        for index, parent in enumerate(parents)
    ]
    samples = samples_from_row(row(tokenizer.fingerprint, turns), tokenizer)
    learned = [id_ for sample in samples for id_ in sample.ids[sample.trainable].tolist()]
    assert sorted(learned) == [10 * i + k for i in range(len(turns)) for k in (1, 2)]
    for sample in samples:
        assert replayed(sample, turns)


def replayed(sample: Sample, turns: list[dict[str, Any]]) -> bool:
    """The sample is what the sampler of its last turn saw and made."""
    leaf = int(sample.ids[-1]) // 10
    expected: list[int] = []
    while leaf >= 0:
        expected = turns[leaf]["prompt_ids"] + turns[leaf]["completion_ids"] + expected
        leaf = turns[leaf]["parent"]
    return bool(sample.ids.tolist() == expected)


@pytest.mark.parametrize("fingerprint", ["another", ""])
def test_a_foreign_row_is_rendered_anew_and_only_completions_are_learned(
    tokenizer: Tokenizer, fingerprint: str
) -> None:
    (sample,) = samples_from_row(row(fingerprint, [turn(-1, [1], [2])]), tokenizer)
    assert sample.ids.tolist() == render(GIVEN, [TOOL], tokenizer, add_generation_prompt=False)
    learned = [
        id_ for m in GIVEN if m.role == "assistant" for id_ in render_assistant(m, tokenizer)
    ]
    assert sample.ids[sample.trainable].tolist() == learned


def test_turns_without_ids_are_rendered_anew(tokenizer: Tokenizer) -> None:
    (sample,) = samples_from_row(row(tokenizer.fingerprint, [turn(-1, [], [])]), tokenizer)
    assert sample.ids.tolist() == render(GIVEN, [TOOL], tokenizer, add_generation_prompt=False)


def test_sampled_and_authored_turns_give_the_same_sample(tokenizer: Tokenizer) -> None:
    turns: list[dict[str, Any]] = []
    so_far: list[int] = []
    for index, message in enumerate(GIVEN):
        if message.role == "assistant":
            prompt = render(GIVEN[:index], [TOOL], tokenizer, add_generation_prompt=True)
            completion = render_assistant(message, tokenizer)
            turns.append(turn(len(turns) - 1, prompt[len(so_far) :], completion))
            so_far = prompt + completion
    (sampled,) = samples_from_row(row(tokenizer.fingerprint, turns), tokenizer)
    (authored,) = samples_from_row(row("another", turns), tokenizer)
    length = len(sampled)
    assert authored.ids[:length].tolist() == sampled.ids.tolist()
    assert authored.trainable[:length].tolist() == sampled.trainable.tolist()
    assert not authored.trainable[length:].any()


def test_a_parent_that_comes_later_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"turn 0 .* got 1"):
        samples_from_row(
            row(tokenizer.fingerprint, [turn(1, [1], [2]), turn(-1, [3], [4])]), tokenizer
        )


@given(st.text(), st.integers(2, 7))
def test_the_pieces_of_a_document_predict_each_of_its_tokens_once(
    tokenizer: Tokenizer, text: str, max_tokens: int
) -> None:
    whole = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    pieces = list(samples_from_text(text, tokenizer, max_tokens=max_tokens))
    assert all(2 <= len(piece) <= max_tokens and piece.trainable.all() for piece in pieces)
    assert np.concatenate([piece.ids[1:] for piece in pieces]).tolist() == whole[1:]


def test_a_row_needs_only_roles_and_contents(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    (sample,) = samples_from_row({"messages": messages}, tokenizer)
    answer = Message(role="assistant", content="yes")
    assert sample.ids[sample.trainable].tolist() == render_assistant(answer, tokenizer)
