"""The server as OpenAI's own client sees it, over a real socket."""

import asyncio
import json
import time
from typing import Any

import httpx
import openai
import pytest
from starlette.types import Receive, Scope, Send

from rollmill.model import Message, ToolCall, ToolSpec
from rollmill.model.chat import render
from rollmill.model.server.answer import TextStops
from rollmill.model.server.app import _Counted
from rollmill.model.server.metrics import Metrics
from rollmill.model.tokenizer import SPECIALS, Tokenizer

BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}
NO_SCHEMA = {"type": "object", "properties": None}
HELLO = [{"role": "user", "content": "hello"}]


def chat(client: openai.OpenAI, **changes: object) -> Any:
    settings = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "seed": 1}
    return client.chat.completions.create(**(settings | changes))  # type: ignore[call-overload]


def test_the_same_seed_gives_the_same_answer_streamed_or_whole(client: openai.OpenAI) -> None:
    extra = {"return_token_ids": True}
    whole = chat(client, extra_body=extra, logprobs=True, top_logprobs=2)
    chunks = list(
        chat(client, extra_body=extra, stream=True, stream_options={"include_usage": True})
    )
    choice = whole.choices[0]
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    ids = [token for delta in deltas for token in delta.token_ids]
    assert ids == choice.token_ids
    assert len(ids) == whole.usage.completion_tokens == chunks[-1].usage.completion_tokens == 12
    for part in ("content", "reasoning_content"):
        streamed = "".join(getattr(delta.delta, part, None) or "" for delta in deltas)
        assert streamed == (getattr(choice.message, part, None) or "")
    assert deltas[-1].finish_reason == choice.finish_reason == "length"
    assert len(choice.logprobs.content) == 12
    assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)
    assert whole.system_fingerprint == "f00d"


def test_token_ids_go_in_and_come_out(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    first = chat(client, extra_body={"return_token_ids": True})
    prompt = render(
        [Message(role="user", content="hello")], [], tokenizer, add_generation_prompt=True
    )
    assert first.prompt_token_ids == prompt
    by_ids: Any = client.completions.create(
        model="tiny",
        prompt=prompt,
        max_tokens=12,
        seed=1,
        logprobs=3,
        extra_body={"return_token_ids": True},
    )
    assert by_ids.choices[0].token_ids == first.choices[0].token_ids
    assert len(by_ids.choices[0].logprobs.token_logprobs) == 12
    history = [
        *HELLO,
        {"role": "assistant", "content": "?", "token_ids": first.choices[0].token_ids},
    ]
    later = chat(client, messages=[*history, *HELLO], extra_body={"return_token_ids": True})
    assert later.prompt_token_ids[: len(prompt) + 12] == prompt + first.choices[0].token_ids


def test_a_required_call_is_well_formed(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    # A random model would ramble on: markers are made likely, so that it comes to an end.
    likely = {str(tokenizer.special_id(each)): 9 for each in SPECIALS}
    for choice in ("required", {"type": "function", "function": {"name": "bash"}}):
        got = chat(client, tools=[BASH], tool_choice=choice, max_tokens=900, logit_bias=likely)
        assert got.choices[0].finish_reason == "tool_calls"
        for call in got.choices[0].message.tool_calls:
            assert call.function.name == "bash"
            assert set(json.loads(call.function.arguments)) <= {"command"}
    free = chat(client, tools=[BASH], logit_bias=likely, extra_body={"constrain_calls": True})
    assert free.choices[0].finish_reason in ("stop", "length", "tool_calls")
    named = {"type": "function", "function": {"name": "rm"}}
    with pytest.raises(openai.BadRequestError, match="one of the offered tools"):
        chat(client, tools=[BASH], tool_choice=named)
    with pytest.raises(openai.BadRequestError, match="a tool to call, got none"):
        chat(client, tool_choice="required")


def test_tools_and_earlier_calls_are_rendered_as_the_policy_reads_them(
    client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "bash", "arguments": '{"command": "ls"}'},
    }
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a.txt"},
    ]
    got = chat(client, messages=messages, tools=[BASH], extra_body={"return_token_ids": True})
    function = BASH["function"]
    expected = render(
        [
            Message(role="user", content="hello"),
            Message(
                role="assistant", tool_calls=(ToolCall(name="bash", arguments={"command": "ls"}),)
            ),
            Message(role="tool", content="a.txt"),
        ],
        [ToolSpec(**function)],  # type: ignore[arg-type]
        tokenizer,
        add_generation_prompt=True,
    )
    assert got.prompt_token_ids == expected


def test_choices_differ_and_are_numbered(client: openai.OpenAI) -> None:
    got = chat(client, n=3, extra_body={"return_token_ids": True})
    assert [choice.index for choice in got.choices] == [0, 1, 2]
    assert len({tuple(choice.token_ids) for choice in got.choices}) == 3
    alone = chat(client, seed=2, extra_body={"return_token_ids": True})
    assert alone.choices[0].token_ids == got.choices[1].token_ids


def test_a_stop_text_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    free = client.completions.create(model="tiny", prompt="hello", max_tokens=30, seed=4)
    text = free.choices[0].text
    stop = text[8:11]
    got = client.completions.create(
        model="tiny", prompt="hello", max_tokens=30, seed=4, stop=[stop]
    )
    assert got.choices[0].text == text[: text.index(stop)]
    assert got.choices[0].finish_reason == "stop"


def test_stop_texts_are_found_across_pieces() -> None:
    for cut in range(1, 12):
        text = "abcabdSTOPxy"
        found = TextStops(["abd", "STOP"])
        told = found.feed(text[:cut]) + found.feed(text[cut:]) + found.feed("", last=True)
        assert told == "abc"
    found = TextStops(["STOP"])
    assert found.feed("a ST") + found.feed("", last=True) == "a ST"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": [{"role": "user", "content": "hello " * 3000}]}, "fewer than 2048"),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"logit_bias": {"300": 1}}, "below 300"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            {
                                "id": "1",
                                "type": "function",
                                "function": {"name": "f", "arguments": "{"},
                            }
                        ],
                    }
                ]
            },
            "JSON in the arguments",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            "content",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": NO_SCHEMA}}]},
            "expected an object as properties, got None",
        ),
    ],
    ids=["too long", "temperature", "no messages", "bias", "arguments", "image", "schema"],
)
def test_a_bad_request_gets_400_and_says_why(
    client: openai.OpenAI, change: dict[str, object], message: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=message):
            chat(client, stream=stream, **change)
    assert chat(client).choices


def test_ids_out_of_range_get_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="below 300"):
        client.completions.create(model="tiny", prompt=[5, 300], max_tokens=2)


async def test_too_many_at_once_get_429_and_the_others_an_answer(address: str) -> None:
    body = {"messages": HELLO, "max_tokens": 60}
    async with httpx.AsyncClient(base_url=address, timeout=120) as http:
        replies = await asyncio.gather(
            *(http.post("/v1/chat/completions", json=body) for _ in range(40))
        )
    statuses = {reply.status_code for reply in replies}
    assert statuses <= {200, 429}
    assert 200 in statuses
    for reply in replies:
        if reply.status_code == 429:
            assert reply.headers["retry-after"] == "1"


def test_hanging_up_frees_the_place(client: openai.OpenAI, address: str) -> None:
    stream = chat(client, stream=True, max_tokens=1900)
    next(iter(stream))
    stream.close()
    give_up = time.monotonic() + 60
    while metric(address, "rollmill_running") and time.monotonic() < give_up:
        time.sleep(0.05)
    assert metric(address, "rollmill_running") == 0


def metric(address: str, name: str) -> float:
    for line in httpx.get(f"{address}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"no {name}")


def test_health_models_and_metrics_tell_the_state(client: openai.OpenAI, address: str) -> None:
    before = metric(address, "rollmill_completion_tokens_total")
    chat(client)
    assert metric(address, "rollmill_completion_tokens_total") == before + 12
    assert httpx.get(f"{address}/health").json()["status"] == "ok"
    assert [model.id for model in client.models.list()] == ["tiny"]
    text = httpx.get(f"{address}/metrics").text
    assert 'rollmill_http_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert json.loads(httpx.get(f"{address}/v1/models").text)["data"][0]["max_model_len"] == 2048


async def test_a_bug_of_ours_is_an_answer_and_counted() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("nobody foresaw this")

    metrics = Metrics()
    transport = httpx.ASGITransport(app=_Counted(broken, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.get("/health")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert metrics._requests == {("other", 500): 1}
