from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from fastapi import Response

from rollmill.model import Message, ToolCall
from rollmill.pipelines.rollout.openai import OpenAIPolicy
from rollmill.pipelines.rollout.policy import ContextOverflow, PolicyError, TurnRequest

from .conftest import ModelServer

BASH = {"name": "bash", "arguments": json.dumps({"command": "ls"})}


def answer(status: int = 200, headers: dict[str, str] | None = None, **body: Any) -> Response:
    return Response(json.dumps(body), status, headers, media_type="application/json")


def reply(*calls: dict[str, Any], finish: str = "stop", **message: Any) -> Response:
    message |= {"tool_calls": [{"id": "x", "function": call} for call in calls]} if calls else {}
    choice = {"message": {"role": "assistant", **message}, "finish_reason": finish}
    return answer(choices=[choice], model="m2", usage={"total_tokens": 42})


@pytest.fixture
async def policy(server: ModelServer) -> AsyncIterator[OpenAIPolicy]:
    opened = OpenAIPolicy(server.url, "m2", tries=4, first_wait_s=0.01)
    yield opened
    await opened.close()


async def test_a_call_is_read_with_thinking_and_counts(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    server.script = [reply(BASH, content="", reasoning_content="let me look")]
    got = await policy.complete(request_)
    call = ToolCall(name="bash", arguments={"command": "ls"})
    assert got.message == Message(role="assistant", reasoning="let me look", tool_calls=(call,))
    assert (got.total_tokens, got.finish_reason, got.version) == (42, "stop", "m2")
    sent = server.seen[0]
    assert (sent["model"], sent["seed"], sent["top_k"]) == ("m2", 7, 40)
    assert [tool["function"]["name"] for tool in sent["tools"]][:2] == ["bash", "read_file"]


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"content": "<think>\nhm\n</think>\n\n"},
    ],
)
async def test_thinking_goes_back_the_way_it_came(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest, message: dict[str, str]
) -> None:
    server.script = [reply(BASH, **message)]
    first = await policy.complete(request_)
    assert first.message.reasoning == "hm"
    assert len(first.message.tool_calls) == 1
    seen = Message(role="tool", content="a.py")
    await policy.complete(replace(request_, messages=(*request_.messages, first.message, seen)))
    _, sent, result = server.seen[1]["messages"]
    field, value = next(iter(message.items()))
    assert sent[field].strip() == value.strip()
    assert result["tool_call_id"] == sent["tool_calls"][0]["id"]


async def test_calls_in_plain_text_are_understood(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    raw = (
        '<minimax:tool_call>\n<invoke name="bash">\n<parameter name="command">ls</parameter>\n'
        "</invoke>\n</minimax:tool_call>"
    )
    server.script = [reply(content=raw)]
    got = await policy.complete(request_)
    assert got.format_error is None
    assert got.message.tool_calls == (ToolCall(name="bash", arguments={"command": "ls"}),)


@pytest.mark.parametrize(
    "call",
    [
        {"name": "bash", "arguments": '{"command": "ls"'},
        {"name": "bash", "arguments": "[1]"},
        {"name": "bash", "arguments": "{}"},
        {"name": "bash", "arguments": '{"command": "ls", "timeout_s": "soon"}'},
        {"name": "fly", "arguments": "{}"},
        {"arguments": "[" * 5000},
    ],
)
async def test_a_malformed_call_is_a_format_error_that_keeps_what_was_written(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest, call: dict[str, Any]
) -> None:
    server.script = [reply(BASH, call)]
    got = await policy.complete(request_)
    assert got.format_error is not None
    assert got.format_error.startswith("expected")
    assert got.message.tool_calls == ()
    assert call["arguments"] in got.message.content


async def test_numbers_in_quotes_are_cast_and_lone_surrogates_replaced(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    server.script = [
        reply({"name": "bash", "arguments": '{"command": "\\ud800", "timeout_s": "5"}'})
    ]
    got = await policy.complete(request_)
    assert got.message.tool_calls[0].arguments == {"command": "?", "timeout_s": 5}


async def test_token_ids_and_logprobs_are_kept_as_sampled(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    choice = {
        "message": {"content": "hi"},
        "finish_reason": "length",
        "token_ids": [5, 6],
        "logprobs": {"content": [{"token": "h", "logprob": -0.5}, {"token": "i", "logprob": -1}]},
    }
    server.script = [answer(choices=[choice], prompt_token_ids=[1, 2, 3])]
    got = await policy.complete(request_)
    assert (got.prompt_ids, got.completion_ids) == ((1, 2, 3), (5, 6))
    assert (got.logprobs, got.finish_reason) == ((-0.5, -1.0), "length")
    assert server.seen[0]["return_token_ids"] is True


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_busy_server_is_asked_again(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest, status: int
) -> None:
    server.script = [answer(status), answer(status), reply(BASH)]
    await policy.complete(request_)
    assert len(server.seen) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured_in_both_forms(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest, form: str
) -> None:
    wanted = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script = [answer(429, {"Retry-After": wanted}), reply(BASH)]
    began = time.monotonic()
    await policy.complete(request_)
    assert 0.9 < time.monotonic() - began < 4


async def test_patience_ends_with_the_url_the_status_and_what_to_do(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    server.script = [answer(503, error="overloaded")]
    with pytest.raises(PolicyError) as failure:
        await policy.complete(request_)
    assert len(server.seen) == 4
    for part in (server.url, "503 Service Unavailable", "overloaded", "try later"):
        assert part in str(failure.value)


async def test_a_refusal_is_not_retried_and_never_shows_the_key(
    server: ModelServer, request_: TurnRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLMILL_API_KEY", "sk-secret")
    policy = OpenAIPolicy(server.url, "m2")
    server.script = [answer(401, error="bad key sk-secret")]
    with pytest.raises(PolicyError, match="set ROLLMILL_API_KEY") as failure:
        await policy.complete(request_)
    await policy.close()
    assert len(server.seen) == 1
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(failure.value)


async def test_a_server_that_knows_no_extras_is_asked_without_them_from_then_on(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    server.script = [answer(400, error="Unrecognized request argument: top_k"), reply(BASH)]
    await policy.complete(request_)
    await policy.complete(request_)
    assert ["top_k" in body for body in server.seen] == [True, False, False]


async def test_a_conversation_too_long_is_an_overflow(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest
) -> None:
    server.script = [answer(400, error={"code": "context_length_exceeded"})]
    with pytest.raises(ContextOverflow):
        await policy.complete(request_)
    assert len(server.seen) == 1


@pytest.mark.parametrize("body", ["<html>hello</html>", "{}", '{"choices": []}', "", '{"choices'])
async def test_what_is_no_completion_is_a_policy_error(
    policy: OpenAIPolicy, server: ModelServer, request_: TurnRequest, body: str
) -> None:
    server.script = [Response(body)]
    with pytest.raises(PolicyError, match="expected a chat completion"):
        await policy.complete(request_)


async def test_an_unreachable_endpoint_is_one_sentence(request_: TurnRequest) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        policy = OpenAIPolicy(url, "m2", tries=2, first_wait_s=0.01)
        for failing in (policy.check(), policy.complete(request_)):
            with pytest.raises(PolicyError, match=f"no answer from {url}.*start the server"):
                await failing
        await policy.close()


async def test_check_names_the_models_that_are_served(
    policy: OpenAIPolicy, server: ModelServer
) -> None:
    await policy.check()
    server.models = answer(data=[{"id": "m2"}])
    await policy.check()
    server.models = answer(data=[{"id": "other"}])
    with pytest.raises(PolicyError, match="does not serve 'm2'; choose one of: other"):
        await policy.check()
    server.models = answer(401)
    with pytest.raises(PolicyError, match="valid key"):
        await policy.check()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://me:pass@host/v1"])
def test_an_address_that_cannot_work_is_refused_when_built(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        OpenAIPolicy(url, "m2")
