"""OpenAI's chat-completion format, both ways: our turn as a request, its reply as a completion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from ...model import Message, ToolCall, ToolSpec
from ...model.arguments import ArgumentError, shorten
from ...model.chat import parse_reply
from .calls import checked_call
from .policy import Completion, TurnRequest

_THINK, _END_THINK, _RAW_CALL = "<think>", "</think>", "<minimax:tool_call>"


class _Function(BaseModel):
    name: str = ""
    arguments: str | dict[str, Any] | None = None


class _Call(BaseModel):
    function: _Function


class _ReplyMessage(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _TokenLogprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_TokenLogprob] | None = None


class _Choice(BaseModel):
    message: _ReplyMessage
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Usage(BaseModel):
    total_tokens: int = 0


class Reply(BaseModel):
    """The parts of a chat completion that are used here."""

    choices: list[_Choice] = Field(min_length=1)
    model: str = ""
    system_fingerprint: str | None = None
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What one server was seen to speak."""

    extras: bool = True
    """Takes options beyond OpenAI's own: `top_k`, `return_token_ids`, thinking in messages."""
    thinking: Literal["reasoning_content", "reasoning", "content"] = "reasoning_content"
    """Where an assistant message carries its thinking; history is sent back the same way."""

    def after(self, reply: Reply) -> Dialect:
        """The same with what this reply shows."""
        message = reply.choices[0].message
        if message.reasoning_content:
            return replace(self, thinking="reasoning_content")
        if message.reasoning:
            return replace(self, thinking="reasoning")
        if _END_THINK in (message.content or ""):
            return replace(self, thinking="content")
        return self


def request_body(request: TurnRequest, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON body of a chat-completion call."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_messages(request.messages, dialect)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if request.tools:  # an empty list is refused by some servers
        body["tools"] = [_tool(tool) for tool in request.tools]
    if dialect.extras:
        body |= {"return_token_ids": True, "logprobs": True}
        body |= {"top_k": sampling.top_k} if sampling.top_k else {}
    return body


def to_completion(reply: Reply, tools: Sequence[ToolSpec]) -> Completion:
    """What the server said. Whatever the model made of its calls, this raises nothing."""
    choice = reply.choices[0]
    message, error = _message(choice.message, tools)
    logprobs = (choice.logprobs and choice.logprobs.content) or []
    return Completion(
        message=message,
        prompt_ids=tuple(reply.prompt_token_ids or ()),
        completion_ids=tuple(choice.token_ids or ()),
        logprobs=tuple(token.logprob for token in logprobs),
        total_tokens=reply.usage.total_tokens if reply.usage else 0,
        finish_reason="length" if choice.finish_reason == "length" else "stop",
        format_error=error,
        version="@".join(filter(None, [reply.model, reply.system_fingerprint])),
    )


def _message(said: _ReplyMessage, tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
    content = said.content or ""
    reasoning = said.reasoning_content or said.reasoning or ""
    error = None
    calls: tuple[ToolCall, ...] = ()
    if _END_THINK in content or _THINK in content or _RAW_CALL in content:
        raw = content if _END_THINK in content or _THINK in content else _END_THINK + content
        read, error = parse_reply(raw, tools)
        content, calls = read.content, read.tool_calls
        reasoning = reasoning or read.reasoning
    if said.tool_calls:
        try:
            calls = tuple(_call(call.function, tools) for call in said.tool_calls)
        except ArgumentError as problem:
            written = "\n".join(
                f"{c.function.name}({c.function.arguments})" for c in said.tool_calls
            )
            error, content, calls = str(problem), f"{content}\n{written}".strip(), ()
    return (
        Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls),
        error,
    )


def _call(function: _Function, tools: Sequence[ToolSpec]) -> ToolCall:
    written = function.arguments
    try:
        arguments = json.loads(written or "{}") if not isinstance(written, dict) else written
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ArgumentError(
            f"expected a JSON object as the arguments of {function.name}, got "
            f"{shorten(str(written))}"
        )
    return checked_call(function.name, arguments, tools)


def _messages(messages: Sequence[Message], dialect: Dialect) -> Iterator[dict[str, Any]]:
    """Tool results name the call they answer by its place in the conversation."""
    unanswered: list[str] = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            unanswered = [f"call_{index}_{k}" for k in range(len(message.tool_calls))]
            yield _assistant(message, unanswered, dialect)
        elif message.role == "tool":
            yield {
                "role": "tool",
                "tool_call_id": unanswered.pop(0),
                "content": message.content,
            }
        else:
            yield {"role": message.role, "content": message.content}


def _assistant(message: Message, call_ids: Sequence[str], dialect: Dialect) -> dict[str, Any]:
    content = message.content
    if message.reasoning and dialect.thinking == "content":
        content = f"{_THINK}\n{message.reasoning}\n{_END_THINK}\n\n{content}"
    said: dict[str, Any] = {"role": "assistant", "content": content}
    if message.reasoning and dialect.thinking != "content" and dialect.extras:
        said[dialect.thinking] = message.reasoning
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call_id, call in zip(call_ids, message.tool_calls, strict=True)
        ]
    return said


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }
