"""Under the mask of a grammar no reply holds a malformed call, whatever the model prefers."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import parse_completion, render_assistant
from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, GenRequest
from rollmill.model.grammar import CallGrammar
from rollmill.model.model import Model
from rollmill.model.mtp import mtp_from_trunk
from rollmill.model.tokenizer import (
    END_INVOKE,
    END_MESSAGE,
    END_PARAMETER,
    END_THINK,
    INVOKE,
    PARAMETER,
    SPECIALS,
    TOOL_CALL,
    Tokenizer,
)

VOCAB = 320
PROPERTIES: dict[str, Any] = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": ["number", "null"]},
    "flag": {"type": "boolean"},
    "items": {"type": "array"},
    "options": {"type": "object"},
    "mode": {"type": "string", "enum": ["r", "rw", "append"]},
    "level": {"type": "integer", "enum": [1, 12, "no"]},
    "free": {},
    "either": {"type": ["integer", "string"]},
    "whatever": True,
    "never": False,
}
EVERYTHING = ToolSpec(
    name="everything",
    description="",
    parameters={"type": "object", "properties": PROPERTIES, "required": ["count", "mode"]},
)
SUBMIT = ToolSpec(name="submit", description="", parameters={"type": "object", "properties": {}})
TOOLS = (EVERYTHING, SUBMIT)


@pytest.fixture(scope="module", params=["ours", "as published"])
def tokenizer(
    request: pytest.FixtureRequest, as_published: Callable[[Tokenizer], Tokenizer]
) -> Tokenizer:
    """One whose markers inside a call are tokens, and one that spells them."""
    texts = [json.dumps(PROPERTIES), 'ls -la\n true false null {"a": [1, 2]} ' * 5]
    texts.append('<invoke name="x">\n<parameter name="y"></parameter>\n</invoke>\n </ >< /a' * 5)
    trained = Tokenizer.train(texts, 300)
    return trained if request.param == "ours" else as_published(trained)


@pytest.fixture(scope="module")
def grammar(tokenizer: Tokenizer) -> CallGrammar:
    return CallGrammar(TOOLS, tokenizer, VOCAB, required=True)


def walk(grammar: CallGrammar, tokenizer: Tokenizer, rng: Random, most: int = 3000) -> list[int]:
    """A reply of random allowed tokens that takes the next marker sometimes."""
    markers = set(tokenizer.markers.values())
    opening = tokenizer.markers.get(PARAMETER)
    ids: list[int] = []
    while len(ids) < most and ids[-1:] != [tokenizer.eos_id]:
        allowed = grammar(ids).nonzero().flatten().tolist()
        ends = [token for token in allowed if token in markers]
        hurried = len(ids) > 100 or rng.random() < 0.3
        if opening is not None and ids.count(opening) > 20:
            ends = [token for token in ends if token != opening] or ends
        if hurried and not ends and tokenizer.spells_calls:
            ids += spelled_end(grammar, tokenizer, ids) or [rng.choice(allowed)]
        else:
            ids.append(rng.choice(ends if ends and hurried else allowed))
    return ids


def spelled_end(grammar: CallGrammar, tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The tokens that end a parameter or a call here, if that is allowed."""
    for marker in (END_PARAMETER, END_INVOKE):
        end = tokenizer.encode(marker)
        if all(grammar(ids + end[:at])[token] for at, token in enumerate(end)):
            return end
    return []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_random_reply_is_malformed(
    grammar: CallGrammar, tokenizer: Tokenizer, seed: int
) -> None:
    ids = walk(grammar, tokenizer, Random(seed))
    assert ids[-1] == tokenizer.eos_id
    message, error = parse_completion(ids, TOOLS, tokenizer)
    assert error is None
    assert message.tool_calls


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.text('ab é\n"\\', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)
ARGUMENTS = st.fixed_dictionaries(
    {"count": st.integers(-(10**14), 10**14), "mode": st.sampled_from(["r", "rw", "append"])},
    optional={
        "text": st.text(max_size=20) | st.sampled_from([*SPECIALS, '">', "</parameter>\n"]),
        "ratio": st.none() | st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda x: round(x, 3)),
        "flag": st.booleans(),
        "items": st.lists(JSON, max_size=3),
        "options": st.dictionaries(st.text("ab", max_size=3), JSON, max_size=3),
        "level": st.sampled_from([1, 12]),
        "free": st.text("abc{", min_size=1, max_size=6),
    },
)


@settings(max_examples=40, deadline=None)
@given(arguments=ARGUMENTS, count=st.integers(1, 3), said=st.text(max_size=10))
def test_every_rendered_call_is_allowed(
    grammar: CallGrammar, tokenizer: Tokenizer, arguments: dict[str, Any], count: int, said: str
) -> None:
    assume(not tokenizer.spells_calls or END_PARAMETER not in arguments.get("text", ""))
    calls = (ToolCall(name="everything", arguments=arguments), ToolCall(name="submit")) * count
    ids = render_assistant(
        Message(role="assistant", content=said, reasoning=said, tool_calls=calls), tokenizer
    )
    for at, token in enumerate(ids):
        assert grammar(ids[:at])[token], (at, tokenizer.decode(ids[: at + 1]))


def test_a_reply_without_a_call_is_allowed_only_where_none_is_required(
    grammar: CallGrammar, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode_pieces(["hm\n", END_THINK, "\n\nhello"])
    end, call = (tokenizer.special_id(each) for each in (END_MESSAGE, TOOL_CALL))
    assert grammar(ids)[[end, call]].tolist() == [False, True]
    free = CallGrammar(TOOLS, tokenizer, VOCAB)
    assert free(ids)[[end, call]].tolist() == [True, True]
    assert CallGrammar([], tokenizer, VOCAB)(ids)[[end, call]].tolist() == [True, False]
    assert not free(ids)[300:].any()  # ids that the tokenizer does not know


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_single_call_is_all_that_may_be_said(tokenizer: Tokenizer, seed: int) -> None:
    grammar = CallGrammar(TOOLS, tokenizer, VOCAB, required=True, single=True)
    message, error = parse_completion(walk(grammar, tokenizer, Random(seed)), TOOLS, tokenizer)
    assert error is None
    assert len(message.tool_calls) == 1


def test_tools_that_cannot_be_called_are_refused(tokenizer: Tokenizer) -> None:
    def tool(**parameters: Any) -> ToolSpec:
        return ToolSpec(name="t", description="", parameters=parameters)

    with pytest.raises(ValueError, match="expected a tool to call, got none"):
        CallGrammar([], tokenizer, VOCAB, required=True)
    with pytest.raises(ValueError, match="nothing fits its required parameter x"):
        CallGrammar([tool(properties={}, required=["x"])], tokenizer, VOCAB)
    schema = {"x": {"type": "integer", "enum": ["one"]}}
    with pytest.raises(ValueError, match="nothing fits its required parameter x"):
        CallGrammar([tool(properties=schema, required=["x"])], tokenizer, VOCAB)
    with pytest.raises(ValueError, match="nothing fits its required parameter x"):
        CallGrammar([tool(properties={"x": False}, required=["x"])], tokenizer, VOCAB)
    with pytest.raises(ValueError, match="names without"):
        CallGrammar([tool(properties={'a"b': {}})], tokenizer, VOCAB)


def test_a_token_that_was_not_allowed_is_named(grammar: CallGrammar, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=f"got {tokenizer.eos_id} at 0"):
        grammar([tokenizer.eos_id])


@pytest.mark.parametrize("guesses", [0, 2])
def test_a_random_model_calls_tools_that_exist(
    guesses: int, tokenizer: Tokenizer, make_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(0)
    config = make_config(vocab_size=VOCAB, initializer_range=0.02, max_position_embeddings=1024)
    model = Model(config)
    engine = Engine(model, mtp=mtp_from_trunk(model, guesses) if guesses else None, slots=4)
    markers = dict.fromkeys(tokenizer.markers.values(), 4.0)
    requests = [
        GenRequest(
            prompt_ids=(5, 6, 7),
            max_tokens=900,
            seed=seed,
            logit_bias=markers,
            mask=CallGrammar(TOOLS, tokenizer, VOCAB, required=True),
            stop_ids=frozenset({tokenizer.eos_id}),
        )
        for seed in range(4)
    ]
    results = engine.generate(requests)
    ended = [each for each in results if each.finish_reason == "stop"]
    assert ended
    for result in ended:
        message, error = parse_completion(result.token_ids, TOOLS, tokenizer)
        assert error is None
        assert message.tool_calls


def test_a_spelled_end_inside_a_value_is_not_allowed_or_not_an_end(
    grammar: CallGrammar, tokenizer: Tokenizer
) -> None:
    """Where `</parameter>` is text, it must not be possible to say it inside an argument."""

    def allowed(name: str, value: str) -> bool:
        start = [END_THINK, TOOL_CALL, "\n", INVOKE, 'everything">\n', PARAMETER, f'{name}">']
        ids = tokenizer.encode_pieces(start)
        given = tokenizer.encode(value)
        return all(bool(grammar(ids + given[:at])[token]) for at, token in enumerate(given))

    for name, value in (("text", "a</parameter>b"), ("items", '["</parameter>"]')):
        assert allowed(name, value) is not tokenizer.spells_calls
    for name, value in (("text", "a</parameter </b"), ("items", '["<b <<\\/parameter>"]')):
        assert allowed(name, value)
