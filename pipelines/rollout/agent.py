"""The white-box agent: ask the policy, run its tool calls, show it what came of them.

It keeps the whole conversation, thinking included; it does not rewrite or shorten it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...model import Message, ToolSpec
from ...workspaces import WORKDIR, Workspace
from ..task import Task
from ..trajectory import Status
from .policy import Completion, ContextOverflow, Policy, Sampling, TurnRequest
from .tools import SUBMIT, TOOLS, Bench, Tool, use
from .transcript import Transcript

_PROMPTS = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A loop around a policy. Holds no state of an episode."""

    name: str = "rollmill"
    version: str = "1"
    tools: Mapping[str, Tool] = field(default_factory=lambda: dict(TOOLS))
    sampling: Sampling = field(default_factory=Sampling)
    prompt: str = "system.j2"
    """Template of the system message, beside this file."""
    observation_chars: int = 4000
    """Of one tool result; the middle of a longer one is cut."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told about the tools."""
        return tuple(tool.spec for tool in self.tools.values())

    async def run(
        self, task: Task, policy: Policy, workspace: Workspace, log: Transcript, *, seed: int
    ) -> Status:
        """Work on a task until it is submitted or a budget is spent; `log` is filled on the way.

        Raises:
            PolicyError: the policy failed.
            WorkspaceError: the workspace failed.
        """
        bench = self._bench(task, workspace)
        log.say(Message(role="system", content=self._system(task)))
        log.say(Message(role="user", content=task.instruction))
        unusable, tokens = 0, 0
        for turn in range(task.budget.max_turns):
            request = self._request(task, log, turn, seed=seed, tokens=tokens)
            try:
                problem, tokens = await self._ask(policy, request, log, bench)
            except TimeoutError:
                return "time_limit"
            except ContextOverflow:
                return "token_limit"
            unusable = unusable + 1 if problem else 0
            if problem:
                log.say(Message(role="user", content=f"Your reply could not be used: {problem}"))
            elif await self._act(log, bench):
                return "submitted"
            if unusable >= task.budget.max_format_errors:
                return "format_limit"
            if tokens >= task.budget.max_tokens:
                return "token_limit"
            if time.monotonic() >= bench.deadline:
                return "time_limit"
        return "step_limit"

    async def _ask(
        self, policy: Policy, request: TurnRequest, log: Transcript, bench: Bench
    ) -> tuple[str | None, int]:
        """One model call; returns why it is of no use (None = it is), and the tokens so far.

        Raises:
            TimeoutError: the episode's time is over.
        """
        began = time.monotonic()
        async with asyncio.timeout(bench.deadline - began):
            reply = await policy.complete(request)
        problem = _problem(reply)
        log.record(reply, format_error=problem, policy_s=time.monotonic() - began)
        return problem, reply.total_tokens or len(reply.prompt_ids) + len(reply.completion_ids)

    async def _act(self, log: Transcript, bench: Bench) -> bool:
        """Run the calls of the last reply in order; True when it submits."""
        for call in log.messages[-1].tool_calls:
            if call.name == SUBMIT:
                return True
            began = time.monotonic()
            try:
                seen = await use(self.tools[call.name], bench, call.arguments)
            finally:
                log.add_tool_time(time.monotonic() - began)
            log.say(Message(role="tool", content=seen))
        return False

    def _bench(self, task: Task, workspace: Workspace) -> Bench:
        return Bench(
            workspace=workspace,
            deadline=time.monotonic() + task.budget.time_limit_s,
            max_chars=self.observation_chars,
        )

    def _system(self, task: Task) -> str:
        template = _PROMPTS.get_template(self.prompt)
        return template.render(workdir=WORKDIR, max_turns=task.budget.max_turns)

    def _request(
        self, task: Task, log: Transcript, turn: int, *, seed: int, tokens: int
    ) -> TurnRequest:
        left = max(task.budget.max_tokens - tokens, 1)
        sampling = replace(
            self.sampling,
            max_tokens=min(self.sampling.max_tokens, left),
            seed=_turn_seed(seed, turn),
        )
        return TurnRequest(
            messages=tuple(log.messages),
            tools=self.specs,
            sampling=sampling,
            task=task,
            turn_index=turn,
        )


def _problem(reply: Completion) -> str | None:
    """Why a reply cannot be acted on; None = it can."""
    problem = reply.format_error
    if problem is None and not reply.message.tool_calls:
        problem = f"expected a tool call, got none; call a tool, or `{SUBMIT}` when you are done"
    if problem and reply.finish_reason == "length":
        return f"{problem} (it was cut at its token limit; be shorter)"
    return problem


def _turn_seed(seed: int, turn: int) -> int:
    """A seed of its own for each turn; 31 bits, which every server takes."""
    digest = hashlib.sha256(f"{seed}:{turn}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
