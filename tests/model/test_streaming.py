"""Whatever is sampled, what the stream tells adds up to what the parser reads in one go."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import parse_completion, render_assistant
from rollmill.model.streaming import ReplyStream
from rollmill.model.tokenizer import SPECIALS, Tokenizer

BASH = ToolSpec(
    name="bash",
    description="Run a command.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}},
)
TEXT = st.text(alphabet="ab\n \u00e9\u2603\U0001f600", max_size=12)
CALLS = st.lists(
    st.builds(lambda text: ToolCall(name="bash", arguments={"command": text}), TEXT), max_size=3
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([json.dumps(BASH.parameters), "ls -la\n\n" * 5], 300)


def told(ids: list[int], tokenizer: Tokenizer) -> tuple[str, str, int]:
    """All reasoning and content of a stream, and after how many tokens the first of it came."""
    stream = ReplyStream([BASH], tokenizer)
    deltas = [stream.feed(token_id) for token_id in ids]
    rest, message, error = stream.finish()
    assert (message, error) == parse_completion(ids, [BASH], tokenizer)
    deltas.append(rest)
    first = next((n for n, each in enumerate(deltas) if each.reasoning or each.content), -1)
    reasoning = "".join(each.reasoning for each in deltas)
    content = "".join(each.content for each in deltas)
    assert (reasoning, content) == (message.reasoning, message.content)
    return reasoning, content, first


@settings(deadline=None)
@given(TEXT, TEXT, CALLS, st.integers(0, 60))
def test_a_rendered_reply_streams_back_whole_or_cut(
    tokenizer: Tokenizer, content: str, reasoning: str, calls: list[ToolCall], cut: int
) -> None:
    reply = Message(role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls))
    ids = render_assistant(reply, tokenizer)
    assert told(ids, tokenizer)[:2] == (reasoning, content)
    told(ids[:cut], tokenizer)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_ids_stream_to_what_the_parser_reads(tokenizer: Tokenizer, data: st.DataObject) -> None:
    markers = st.sampled_from([tokenizer.special_id(each) for each in SPECIALS])
    lines = st.sampled_from(tokenizer.encode("\n"))
    ids = st.lists(markers | lines | st.integers(0, 299), max_size=25)
    told(data.draw(ids), tokenizer)


def test_text_is_told_before_the_end(tokenizer: Tokenizer) -> None:
    ids = render_assistant(Message(role="assistant", content="abc " * 9), tokenizer)
    assert told(ids, tokenizer)[2] < len(ids) / 2
