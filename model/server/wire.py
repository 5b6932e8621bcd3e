"""What clients may send: OpenAI's completions and chat completions, and our extensions.

Extensions: `top_k`, `repetition_penalty`, `return_token_ids`, `constrain_calls`; `token_ids` and
`reasoning_content` in assistant messages. A null means the default, as OpenAI's client sends it.
OpenAI's fields that would change the answer and cannot be honoured are refused, images and audio
among them; all other unknown fields are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from ..messages import Message, Role, ToolCall, ToolSpec, schema_problem

MAX_CHOICES = 128
MAX_TOGETHER = 2048
"""Choices of all prompts of a request."""
Penalty = Annotated[float, Field(ge=-2, le=2)]

# OpenAI's fields that would change the answer: the values that ask for nothing we do not do.
_UNANSWERED: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}


class _Wire(BaseModel):
    """Something that a client sends; a null is as good as nothing."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Sampling(_Wire):
    """What both kinds of request share."""

    model: str = ""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = None
    """None = another one for each request."""
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    user: str = ""
    """Users take turns when many wait."""
    return_token_ids: bool = False
    best_of: int | None = None
    """None, or as many as `n`: all choices are returned, none is chosen by the server."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_answered(cls, data: Any) -> Any:
        for name, allowed in _UNANSWERED.items() if isinstance(data, dict) else ():
            if (value := data.get(name)) is not None and value not in allowed:
                known = f"{name} = {json.dumps(allowed[0])}" if allowed else f"no {name}"
                raise ValueError(
                    f"expected {known}, got {json.dumps(value)[:80]}; leave it out, this server "
                    "does not do it"
                )
        return data

    @model_validator(mode="after")
    def _returns_all(self) -> Self:
        if self.best_of not in (None, self.n):
            raise ValueError(
                f"expected best_of = n ({self.n}), got {self.best_of}; ask for n choices and "
                "choose among them"
            )
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in texts if text)

    @property
    def scores_prompt(self) -> bool:
        """Whether the logprobs of the prompt are asked for; only a completion's can be."""
        return False

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk of counts."""
        return bool((self.stream_options or {}).get("include_usage"))


class CompletionRequest(Sampling):
    """`POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]]
    """Text or token ids, or several of them, each answered by `n` choices."""
    max_tokens: Annotated[int, Field(ge=0)] = 16
    """0 with `echo` alone: the prompt and its logprobs are all that is wanted."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    """Whether the text of a choice begins with its prompt, and its logprobs with the prompt's."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if not (self.max_tokens or self.echo):
            raise ValueError("expected max_tokens of 1 or more, got 0; only an echo may end there")
        if self.n * len(self.prompts) > MAX_TOGETHER:
            raise ValueError(
                f"expected at most {MAX_TOGETHER} choices of all prompts, got {self.n} for each "
                f"of {len(self.prompts)}; send several requests"
            )
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the logprobs of the prompt are asked for."""
        return self.echo and self.logprobs is not None

    @property
    def several(self) -> bool:
        """Whether the prompt is a list of prompts, though it may hold one."""
        return isinstance(self.prompt, list) and not all(type(each) is int for each in self.prompt)

    @property
    def prompts(self) -> Sequence[str | Sequence[int]]:
        """Each of the prompts."""
        if isinstance(self.prompt, str) or not self.several:
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]


class _Function(_Wire):
    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})

    @field_validator("parameters")
    @classmethod
    def _are_a_schema(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if problem := schema_problem(parameters):
            raise ValueError(problem)
        return parameters


class _Tool(_Wire):
    type: Literal["function"] = "function"
    function: _Function


class _CalledFunction(_Wire):
    name: str
    arguments: str = "{}"


class _Call(_Wire):
    function: _CalledFunction


class _TextPart(_Wire):
    type: Literal["text"]
    text: str


class _Message(_Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_TextPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    token_ids: list[int] | None = None


class _ChosenFunction(_Wire):
    name: str


class _Choice(_Wire):
    type: Literal["function"] = "function"
    function: _ChosenFunction


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    """`required`, or one tool by name: the reply is a well-formed call, by construction."""
    constrain_calls: bool = False
    """Whether calls are well formed by construction also where they are not required."""
    parallel_tool_calls: bool = True
    """False: the reply holds at most one call, by the same construction."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """None = as many as the context has room for."""
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @property
    def offered(self) -> Sequence[ToolSpec]:
        """The tools that the model may call."""
        tools = [] if self.tool_choice == "none" else self.tools or []
        return [
            ToolSpec(
                name=tool.function.name,
                description=tool.function.description,
                parameters=tool.function.parameters,
            )
            for tool in tools
        ]

    @property
    def callable(self) -> Sequence[ToolSpec]:
        """Those that the reply may call: all that are offered, or the chosen one.

        Raises:
            ValueError: the chosen one is not offered.
        """
        if not isinstance(self.tool_choice, _Choice):
            return self.offered
        name = self.tool_choice.function.name
        chosen = [tool for tool in self.offered if tool.name == name]
        if not chosen:
            names = ", ".join(tool.name for tool in self.offered) or "none"
            raise ValueError(
                f"expected one of the offered tools ({names}) as tool_choice, got {name}"
            )
        return chosen

    @property
    def must_call(self) -> bool:
        """Whether the reply has to be a call."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, _Choice)

    @property
    def one_call(self) -> bool:
        """Whether there are tools and more than one call is not wanted."""
        return not self.parallel_tool_calls and bool(self.offered)

    def conversation(self) -> list[Message]:
        """The messages as the model layer knows them.

        Raises:
            ValueError: the arguments of an earlier call are no JSON object.
        """
        return [_message(message) for message in self.messages]


def _message(message: _Message) -> Message:
    content = message.content or ""
    role: Role = "system" if message.role == "developer" else message.role
    return Message(
        role=role,
        content=content if isinstance(content, str) else "".join(part.text for part in content),
        reasoning=message.reasoning_content or "",
        tool_calls=tuple(_call(call.function) for call in message.tool_calls or ()),
        token_ids=None if message.token_ids is None else tuple(message.token_ids),
    )


def _call(function: _CalledFunction) -> ToolCall:
    try:
        arguments = json.loads(function.arguments or "{}")
    except ValueError as error:
        raise ValueError(
            f"expected JSON in the arguments of an earlier call of {function.name}, got {error}"
        ) from error
    if not isinstance(arguments, dict):
        raise ValueError(
            f"expected a JSON object in the arguments of {function.name}, got {function.arguments}"
        )
    return ToolCall(name=function.name, arguments=arguments)
