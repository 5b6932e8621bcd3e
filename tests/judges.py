"""Judges for the tests, without a model: one looks for the passages that it is told of."""

import json
import re
from collections.abc import Callable, Mapping

from rollmill.model import Message
from rollmill.pipelines.rollout.authored import AuthoredPolicy
from rollmill.pipelines.rollout.policy import TurnRequest
from rollmill.verifiers import Judge, Question

CRITERION = re.compile(r"^- (c\d+): (.*)$", re.MULTILINE)
Says = Callable[[str, str, str], tuple[bool, list[str]]]
"""What a judge says of one criterion, by its text, the work, and the instructions."""


def findings(instructions: str, content: str, says: Says) -> str:
    """The reply in which a judge says so of each criterion."""
    work = "\n".join(line[2:] for line in content.splitlines()[1:-1])
    found = []
    for key, text in CRITERION.findall(instructions):
        met, quotes = says(text, work, instructions)
        found.append({"id": key, "met": met, "quotes": quotes})
    return json.dumps({"findings": found})


def reader(passages: Mapping[str, str]) -> Says:
    """Says that a criterion is met where the work holds its passage, and quotes that."""

    def says(text: str, work: str, _: str) -> tuple[bool, list[str]]:
        passage = passages.get(text)
        met = passage is not None and passage in " ".join(work.split())
        return met, [passage] if met and passage else []

    return says


def judge(says: Says, name: str = "scripted") -> Judge:
    """A judge without a model."""

    async def ask(question: Question) -> str:
        return findings(question.instructions, question.content, says)

    return Judge(name=name, ask=ask)


def policy(says: Says) -> AuthoredPolicy:
    """The same as a policy, as `--judge` would name one."""

    def reply(request: TurnRequest) -> Message:
        system, user = request.messages
        return Message(role="assistant", content=findings(system.content, user.content, says))

    return AuthoredPolicy("judge", reply)
