import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import (
    parse_completion,
    parse_reply,
    render,
    render_assistant,
    render_text,
)
from rollmill.model.tokenizer import SPECIALS, Tokenizer

TYPES = {
    "text": st.text(),
    "count": st.integers(),
    "ratio": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "items": st.lists(st.text() | st.integers() | st.none()),
    "options": st.dictionaries(st.text(), st.text() | st.booleans()),
}
KINDS = ("string", "integer", "number", "boolean", "array", "object")
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": kind} for name, kind in zip(TYPES, KINDS, strict=True)},
}
BASH = ToolSpec(
    name="bash",
    description="Run a command.",
    parameters={
        "type": "object",
        "properties": {"command": {"type": "string"}, "timeout_s": {"type": "integer"}},
        "required": ["command"],
    },
)
TOOLS = (
    ToolSpec(name="anything", description="Takes what it gets.", parameters=SCHEMA),
    BASH,
    ToolSpec(name="submit", description="Done.", parameters={"type": "object", "properties": {}}),
)
HOSTILE = st.sampled_from(
    [*SPECIALS, '">', "\n", "</parameter>\n</invoke>", '</parameter>\n<parameter name="x">', "a"]
)
TEXT = st.text(max_size=30) | st.lists(HOSTILE, max_size=5).map("".join)
CALLS = st.builds(
    lambda arguments: ToolCall(name="anything", arguments=arguments),
    st.fixed_dictionaries({}, optional=TYPES | {"text": TEXT}),
)
ASSISTANTS = st.builds(
    lambda content, reasoning, calls: Message(
        role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls)
    ),
    TEXT,
    TEXT,
    st.lists(CALLS, max_size=3),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([json.dumps(SCHEMA), "ls -la\n" * 5], 300)


@given(ASSISTANTS)
def test_parsing_a_rendered_message_gives_it_back_whatever_it_contains(
    tokenizer: Tokenizer, message: Message
) -> None:
    ids = render_assistant(message, tokenizer)
    parsed, error = parse_completion(ids, TOOLS, tokenizer)
    assert error is None
    assert parsed.token_ids == tuple(ids)
    assert (parsed.content, parsed.reasoning) == (message.content, message.reasoning)
    assert parsed.tool_calls == message.tool_calls


@given(st.text() | st.lists(HOSTILE | st.text(max_size=5), max_size=12).map("".join))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    message, error = parse_reply(text, TOOLS)
    assert message.role == "assistant"
    assert error is None or message.tool_calls == ()


@given(st.lists(st.integers(0, 299), max_size=40))
def test_no_ids_make_the_parser_raise(tokenizer: Tokenizer, ids: list[int]) -> None:
    message, _ = parse_completion(ids, TOOLS, tokenizer)
    assert message.token_ids == tuple(ids)


@given(st.lists(HOSTILE | st.text(max_size=5), max_size=8).map("".join))
def test_content_never_becomes_a_marker(tokenizer: Tokenizer, text: str) -> None:
    def specials(content: str) -> int:
        messages = [
            Message(role="system", content=content),
            Message(role="user", content=content),
            Message(role="assistant", content=content, reasoning=content),
            Message(role="tool", content=content),
        ]
        ids = render(messages, [], tokenizer, add_generation_prompt=True)
        return sum(id_ in {tokenizer.special_id(each) for each in SPECIALS} for id_ in ids)

    assert specials(text) == specials("plain")


@given(st.lists(st.tuples(TEXT, st.booleans(), st.integers(0, 3)), min_size=1, max_size=4))
def test_every_prompt_and_completion_is_a_prefix_of_the_next_prompt(
    tokenizer: Tokenizer, turns: list[tuple[str, bool, int]]
) -> None:
    messages = [Message(role="system", content="s"), Message(role="user", content="u")]
    so_far: list[int] = []
    for text, cut, results in turns:
        prompt = render(messages, TOOLS, tokenizer, add_generation_prompt=True)
        assert prompt[: len(so_far)] == so_far
        completion = render_assistant(Message(role="assistant", content=text), tokenizer)
        completion = completion[:-1] if cut else completion
        so_far = prompt + completion
        messages.append(Message(role="assistant", content="?", token_ids=tuple(completion)))
        messages += [Message(role="tool", content=text)] * results
    last = render(messages, TOOLS, tokenizer, add_generation_prompt=True)
    assert last[: len(so_far)] == so_far
    assert last[len(so_far)] == tokenizer.eos_id if cut else last[len(so_far)] != tokenizer.eos_id


def test_authored_and_sampled_history_render_alike(tokenizer: Tokenizer) -> None:
    gold = Message(
        role="assistant",
        reasoning="Look.",
        tool_calls=(ToolCall(name="bash", arguments={"command": "ls"}),),
    )
    sampled = Message(role="assistant", token_ids=tuple(render_assistant(gold, tokenizer)))
    user = Message(role="user", content="go")
    assert render([user, gold], TOOLS, tokenizer, add_generation_prompt=False) == render(
        [user, sampled], TOOLS, tokenizer, add_generation_prompt=False
    )


CONVERSATION = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="List it."),
    Message(
        role="assistant",
        reasoning="I look.",
        content="Looking.",
        tool_calls=(
            ToolCall(name="bash", arguments={"command": "ls", "timeout_s": 5}),
            ToolCall(name="submit"),
        ),
    ),
    Message(role="tool", content="a.py"),
    Message(role="tool", content="ok"),
]
RENDERED = """]~!b[]~b]system
Be brief.

# Tools
You may call one or more tools to assist with the user query.
Here are the tools available in JSONSchema format:

<tools>
<tool>{"name": "bash", "description": "Run a command.", "parameters": {"type": "object", \
"properties": {"command": {"type": "string"}, "timeout_s": {"type": "integer"}}, \
"required": ["command"]}}</tool>
</tools>

When making tool calls, use XML format to invoke tools and pass parameters:

<minimax:tool_call>
<invoke name="tool-name-1">
<parameter name="param-key-1">param-value-1</parameter>
<parameter name="param-key-2">param-value-2</parameter>
...
</invoke>
</minimax:tool_call>[e~[
]~b]user
List it.[e~[
]~b]ai
<think>
I look.
</think>

Looking.
<minimax:tool_call>
<invoke name="bash">
<parameter name="command">ls</parameter>
<parameter name="timeout_s">5</parameter>
</invoke>
<invoke name="submit">
</invoke>
</minimax:tool_call>[e~[
]~b]tool
<response>a.py</response>
<response>ok</response>[e~[
]~b]ai
<think>
"""


def test_the_text_is_m2s_template() -> None:
    assert render_text(CONVERSATION, [BASH], add_generation_prompt=True) == RENDERED


def test_ids_spell_the_text(tokenizer: Tokenizer) -> None:
    ids = render(CONVERSATION, [BASH], tokenizer, add_generation_prompt=True)
    assert tokenizer.decode(ids) == RENDERED


def call(*parameters: str, name: str = "bash") -> str:
    inside = "".join(f"<parameter {each}</parameter>\n" for each in parameters)
    return (
        f'ok\n</think>\n\n\n<minimax:tool_call>\n<invoke name="{name}">\n{inside}</invoke>\n'
        "</minimax:tool_call>[e~["
    )


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("still thinking", "expected </think> after the thinking, got the end of the reply"),
        (call(name="rm"), "expected one of the tools anything, bash, submit, got 'rm'"),
        (call(), "expected the parameter command of bash, got none"),
        (call('name="timeout_s">3'), "expected the parameter command of bash, got timeout_s"),
        (
            call('name="command">ls', 'name="shell">sh'),
            "expected the parameters of bash (command, timeout_s), got 'shell'",
        ),
        (
            call('name="command">ls', 'name="timeout_s">soon'),
            "expected integer for timeout_s of bash, got 'soon'",
        ),
        (
            call('name="command">ls', 'name="timeout_s">true'),
            "expected integer for timeout_s of bash, got 'true'",
        ),
        (
            call('name="command">ls', 'name="command">ls'),
            "expected the parameter 'command' once, got it twice",
        ),
        (call('name="command ls'), "expected a name and \">, got 'command ls'"),
        (
            call('name="command">ls').replace("</minimax:tool_call>", ""),
            "expected </minimax:tool_call>, got the end of the reply",
        ),
        (
            call('name="command">ls').replace("[e~[", " done"),
            "expected the end of the message, got 'done'",
        ),
        (
            "</think>\n\n<minimax:tool_call>ls</minimax:tool_call>",
            "expected <invoke name=\"..., got 'ls'",
        ),
    ],
)
def test_a_bad_call_says_what_was_expected_and_what_came(reply: str, expected: str) -> None:
    message, error = parse_reply(reply, TOOLS)
    assert error == expected
    assert message.tool_calls == ()


def test_a_bad_call_keeps_its_text_as_content() -> None:
    message, _ = parse_reply(call(name="rm"), TOOLS)
    assert message.reasoning == "ok"
    assert '<invoke name="rm">' in message.content


def test_a_value_in_text_may_contain_the_closing_marker() -> None:
    reply = call('name="command">echo "</parameter>" "</invoke>"')
    message, error = parse_reply(reply, TOOLS)
    assert error is None
    assert message.tool_calls[0].arguments == {"command": 'echo "</parameter>" "</invoke>"'}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "[" * 100_000, "9" * 5000])
def test_numbers_json_does_not_have_are_ill_typed(number: str) -> None:
    _, error = parse_reply(call(f'name="ratio">{number}', name="anything"), TOOLS)
    assert error is not None
    assert error.startswith("expected number for ratio")


@pytest.mark.parametrize("value", ["1e999", "-1e999", "[1, 1e999]", '{"a": 1e999}', "NaN"])
def test_an_argument_of_any_type_is_always_json(value: str) -> None:
    free = ToolSpec(name="free", description="", parameters={"properties": {"x": {}, "y": True}})
    message, error = parse_reply(
        call(f'name="x">{value}', f'name="y">{value}', name="free"), [free]
    )
    assert error is None
    assert message.tool_calls[0].arguments == {"x": value, "y": value}
    json.dumps(message.tool_calls[0].arguments, allow_nan=False)


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["integer", "string", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["x", "type", "enum", "properties", "required"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(schema=st.dictionaries(st.sampled_from(["properties", "required"]), SCHEMAS), text=st.text())
def test_a_schema_is_refused_when_offered_or_every_reply_is_read(
    schema: dict[str, object], text: str
) -> None:
    try:
        tool = ToolSpec(name="bash", description="", parameters=schema)
    except ValueError as error:
        assert "cannot offer the tool bash: expected" in str(error)  # noqa: PT017
        return
    parse_reply(call(f'name="x">{text}', name="bash"), [tool])
    parse_reply(call('name="x">3', name="bash"), [tool])


def test_a_property_may_be_a_boolean_schema() -> None:
    tool = ToolSpec(
        name="pick", description="", parameters={"properties": {"any": True, "none": False}}
    )
    message, error = parse_reply(call('name="any">[1]', name="pick"), [tool])
    assert error is None
    assert message.tool_calls[0].arguments == {"any": [1]}
    _, error = parse_reply(call('name="none">1', name="pick"), [tool])
    assert error == "expected no none of pick, since nothing fits its schema, got '1'"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"properties": None}, "expected an object as properties, got None"),
        ({"properties": {"x": None}}, "expected a JSON schema for x, got None"),
        ({"properties": {"x": {"type": 5}}}, "the type of x, got 5"),
        ({"properties": {"x": {"enum": None}}}, "the enum of x, got None"),
        ({"required": True}, "expected a list of names as required, got True"),
    ],
    ids=str,
)
def test_a_tool_without_a_usable_schema_is_refused(schema: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ToolSpec(name="t", description="", parameters=schema)


def test_enums_and_unions_are_checked() -> None:
    tool = ToolSpec(
        name="pick",
        description="",
        parameters={
            "properties": {
                "mode": {"type": "string", "enum": ["r", "w"]},
                "line": {"type": ["integer", "null", "string"]},
            }
        },
    )
    message, error = parse_reply(call('name="mode">r', 'name="line">null', name="pick"), [tool])
    assert error is None
    assert message.tool_calls[0].arguments == {"mode": "r", "line": None}
    _, error = parse_reply(call('name="mode">x', name="pick"), [tool])
    assert error == "expected one of ['r', 'w'] for mode of pick, got 'x'"
