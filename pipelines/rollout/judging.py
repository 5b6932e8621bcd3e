"""Policies as judges: any model that completes a turn can sit on the panel of a rubric.

A judge is asked without tools and greedily; it sees the question alone, never an episode.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ...model import Message
from ...verifiers import Judge, JudgeError, Question
from ..task import Task
from .policies import UnknownPolicy, answering, open_policy
from .policy import Policy, PolicyError, Sampling, TurnRequest

MAX_TOKENS = 4096
"""Of one reply, thinking included."""
NO_JUDGES = ("gold", "null")


def open_judge(spec: str) -> Policy:
    """The policy that judges, by its specification; nothing is contacted before it is used.

    Raises:
        UnknownPolicy: it names nothing, or nothing that can judge.
    """
    if spec in NO_JUDGES:
        raise UnknownPolicy(f"{spec!r} cannot judge; name a model, as in openai:URL#MODEL")
    return open_policy(spec)


@asynccontextmanager
async def opened_judges(specs: Sequence[str]) -> AsyncIterator[tuple[Policy, ...]]:
    """Judges that were found able to answer, for the time of a block.

    Raises:
        UnknownPolicy, PolicyError: one of them cannot judge, or does not answer.
    """
    async with AsyncExitStack() as stack:
        yield tuple(
            [await stack.enter_async_context(answering(open_judge(spec))) for spec in specs]
        )


def panel_of(policies: Sequence[Policy], task: Task) -> tuple[Judge, ...]:
    """The policies as a panel for the work on one task."""
    return tuple(_judge(policy, task) for policy in policies)


def _judge(policy: Policy, task: Task) -> Judge:
    async def ask(question: Question) -> str:
        request = TurnRequest(
            messages=(
                Message(role="system", content=question.instructions),
                Message(role="user", content=question.content),
            ),
            tools=(),
            sampling=Sampling(
                temperature=0.0, top_p=1.0, top_k=0, max_tokens=MAX_TOKENS, seed=question.number
            ),
            task=task,
            turn_index=question.number,
        )
        try:
            return (await policy.complete(request)).message.content
        except PolicyError as error:
            raise JudgeError(str(error)) from error

    return Judge(name=policy.name, ask=ask)
