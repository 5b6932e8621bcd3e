"""Policies that sample nothing: `gold` performs the task's solution, `null` submits at once, and
`ScriptedPolicy` says what it is told, for tests and dry runs.

With the bundled tokenizer their turns carry token ids, without logprobs: they are demonstrations
for the bundled policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...model import Message, ToolCall
from ...model.arguments import ArgumentError
from ...model.chat import render, render_assistant
from ...model.tokenizer import Tokenizer, load_bundled_tokenizer
from .calls import checked_call
from .policy import Completion, PolicyError, TurnRequest
from .tools import SUBMIT


class AuthoredPolicy:
    """A policy whose replies are written by a function of the request.

    Args:
        tokenizer: None = the turns carry no token ids.
    """

    deterministic = True

    def __init__(
        self,
        name: str,
        reply: Callable[[TurnRequest], Message],
        *,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer.fingerprint if tokenizer else ""
        self._reply = reply
        self._tokenizer = tokenizer

    async def check(self) -> None:
        """Always able to answer."""

    async def complete(self, request: TurnRequest) -> Completion:
        """The authored reply; calls that do not fit the tools are a format error."""
        message = self._reply(request)
        problem = _misfit(message, request)
        if problem:
            return Completion(
                message=replace(message, tool_calls=()), format_error=problem, version="1"
            )
        if self._tokenizer is None:
            return Completion(message=message, version="1")
        completion = tuple(render_assistant(message, self._tokenizer))
        prompt = render(
            request.messages, request.tools, self._tokenizer, add_generation_prompt=True
        )
        return Completion(
            message=replace(message, token_ids=completion),
            prompt_ids=tuple(prompt),
            completion_ids=completion,
            version="1",
        )

    async def close(self) -> None:
        """Nothing is held."""


class ScriptedPolicy(AuthoredPolicy):
    """Says the n-th scripted reply in the n-th turn; an error in the script is raised.

    Args:
        delay_s: how long each reply takes.
    """

    def __init__(
        self,
        script: Sequence[Message | Completion | PolicyError],
        *,
        delay_s: float = 0.0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__("scripted", self._message, tokenizer=tokenizer)
        self._script = tuple(script)
        self._delay_s = delay_s

    async def complete(self, request: TurnRequest) -> Completion:
        """The scripted completion as it stands, or the scripted message completed."""
        await asyncio.sleep(self._delay_s)
        if request.turn_index >= len(self._script):
            raise PolicyError(
                f"expected at most {len(self._script)} turns, the length of the script, got "
                f"turn {request.turn_index + 1}; script more replies"
            )
        scripted = self._script[request.turn_index]
        if isinstance(scripted, PolicyError):
            raise scripted
        return scripted if isinstance(scripted, Completion) else await super().complete(request)

    def _message(self, request: TurnRequest) -> Message:
        scripted = self._script[request.turn_index]
        assert isinstance(scripted, Message), "complete() handles the others"
        return scripted


def gold_policy() -> AuthoredPolicy:
    """Performs the task's gold solution move by move, then submits."""
    return AuthoredPolicy("gold", _gold_move, tokenizer=_bundled_tokenizer())


def null_policy() -> AuthoredPolicy:
    """Submits at once: a task that this passes asks for nothing."""
    return AuthoredPolicy("null", lambda _: _submission(""), tokenizer=_bundled_tokenizer())


def _gold_move(request: TurnRequest) -> Message:
    moves = request.task.solution
    if request.turn_index >= len(moves):
        return _submission("The work is done and checked, so I submit it.")
    move = moves[request.turn_index]
    return Message(role="assistant", reasoning=move.thought, tool_calls=move.calls)


def _submission(thought: str) -> Message:
    return Message(role="assistant", reasoning=thought, tool_calls=(ToolCall(name=SUBMIT),))


def _misfit(message: Message, request: TurnRequest) -> str | None:
    try:
        for call in message.tool_calls:
            checked_call(call.name, call.arguments, request.tools)
    except ArgumentError as error:
        return str(error)
    return None


def _bundled_tokenizer() -> Tokenizer | None:
    """None = this checkout bundles none yet."""
    try:
        return load_bundled_tokenizer()
    except FileNotFoundError:
        return None
