"""The chat format with a tokenizer as M2's own is: the markers inside a call are plain text."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import parse_completion, render_assistant, render_text
from rollmill.model.tokenizer import END_THINK, SPECIALS, TOOL_CALL, Tokenizer

SCHEMA = {"properties": {"text": {"type": "string"}, "count": {"type": "integer"}}}
TOOLS = (ToolSpec(name="anything", description="Takes what it gets.", parameters=SCHEMA),)


@pytest.fixture(scope="module")
def published(as_published: Callable[[Tokenizer], Tokenizer]) -> Tokenizer:
    return as_published(Tokenizer.train([json.dumps(SCHEMA), "ls -la\n" * 5], 300))


CALLS = st.lists(
    st.builds(
        lambda arguments: ToolCall(name="anything", arguments=arguments),
        st.fixed_dictionaries({}, optional={"text": st.text('ab<>/ \n"é', max_size=20)}),
    ),
    max_size=3,
)


@given(st.text(max_size=30), st.text(max_size=9), CALLS)
def test_a_rendered_message_comes_back(
    published: Tokenizer, content: str, reasoning: str, calls: list[ToolCall]
) -> None:
    message = Message(
        role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls)
    )
    ids = render_assistant(message, published)
    assert published.decode(ids) == render_text([message], []).partition("<think>\n")[2][:-1]
    parsed, error = parse_completion(ids, TOOLS, published)
    assert error is None
    assert (parsed.content, parsed.reasoning) == (message.content, message.reasoning)
    assert parsed.tool_calls == message.tool_calls


@given(st.lists(st.integers(0, 290), max_size=40))
def test_no_ids_make_the_parser_raise(published: Tokenizer, ids: list[int]) -> None:
    parse_completion(ids, TOOLS, published)


def test_text_still_never_becomes_a_marker(published: Tokenizer) -> None:
    ids = published.encode("".join(SPECIALS))
    assert not set(ids) & set(published.markers.values())
    message, error = parse_completion(
        published.encode_pieces([END_THINK, TOOL_CALL, '\n<invoke name="rm">\n']), TOOLS, published
    )
    assert error == "expected one of the tools anything, got 'rm'"
    assert message.tool_calls == ()
