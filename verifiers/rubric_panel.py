"""Asks a panel of judges about criteria and believes only what they can show in the work.

A judge is a function that completes a conversation; which model stands behind it is not known
here. The work reaches it quoted line by line between fences that its author could not foresee,
beside a control criterion that no work meets: who says that it is met was talked round.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, ValidationError

from .evidence import MIN_QUOTE_CHARS, stands_in
from .integrity_office import INJECTION

_PROMPTS = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class JudgeError(Exception):
    """A judge gave no answer; its voice is missing, which says nothing about the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What one judge is asked once."""

    instructions: str
    """For the system message."""
    content: str
    """The quoted work, for the user's message."""
    number: int
    """Which of the repeated questions to the same judge, from 0; also a seed for sampling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Somebody who can be asked."""

    name: str
    ask: Callable[[Question], Awaitable[str]]
    """Gives the reply as text.

    Raises:
        JudgeError: there is none.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One thing to be found in the work or not."""

    text: str
    words: Sequence[str] = ()
    """A quote is evidence only when it holds at least one of these; empty = any quote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """What one reply says of one statement, once its quotes were looked up."""

    met: bool | None
    """None = nothing that can be used."""
    quote: str = ""
    """The passage that shows it."""
    problem: str = ""
    """Why it cannot be used."""


class _Finding(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str
    met: bool
    quotes: list[str] = []


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True)

    findings: list[_Finding]


async def ask_panel(
    panel: Sequence[Judge],
    statements: Sequence[Statement],
    content: str,
    *,
    asked: str = "",
    repeats: int = 1,
) -> list[list[Vote]]:
    """Every vote on each statement: one a judge and repeat, in that order.

    Args:
        asked: what the author of the work was asked for, to be told to the judges.
        repeats: how often each judge is asked; the statements come in another order each time.
    """

    async def replied(judge: Judge, number: int) -> list[Vote]:
        question, ids = frame(statements, content, asked=asked, number=number)
        try:
            reply = await judge.ask(question)
        except JudgeError as error:
            return [Vote(met=None, problem=f"{judge.name}: {error}")] * len(statements)
        return read_reply(reply, ids, statements, content)

    asks = [replied(judge, number) for judge in panel for number in range(repeats)]
    replies = await asyncio.gather(*asks)
    return [list(votes) for votes in zip(*replies, strict=True)]


def frame(
    statements: Sequence[Statement], content: str, *, asked: str, number: int
) -> tuple[Question, list[str]]:
    """A question, and the id under which it names each statement.

    Fence, control and order follow from everything that is asked, hidden criteria included.
    """
    whole = "\n".join([content, asked, *(each.text for each in statements), str(number)])
    salt = hashlib.sha256(whole.encode()).hexdigest()
    fence, code = f"=== {salt[:12]} ===", salt[12:24]
    drawn = random.Random(salt)
    texts = [each.text for each in statements]
    texts.append(f"The work holds the code word {code}.")
    order = drawn.sample(range(len(texts)), len(texts))
    ids = [""] * len(texts)
    for place, at in enumerate(order, 1):
        ids[at] = f"c{place}"
    instructions = _PROMPTS.get_template("rubric_instructions.j2").render(
        fence=fence,
        asked=asked.strip(),
        criteria=[(ids[at], texts[at]) for at in order],
        least=MIN_QUOTE_CHARS,
    )
    quoted = "\n".join(f"> {line}" for line in content.splitlines())
    question = Question(
        instructions=instructions, content=f"{fence}\n{quoted}\n{fence}", number=number
    )
    return question, ids


def read_reply(
    reply: str, ids: Sequence[str], statements: Sequence[Statement], content: str
) -> list[Vote]:
    """One vote a statement. A reply that cannot be trusted as a whole gives none.

    Args:
        ids: as `frame` gave them, the control's last.
    """
    try:
        findings = _parsed(reply, ids)
    except ValueError as error:
        return [Vote(met=None, problem=str(error)[:200])] * len(statements)
    if findings[ids[-1]].met:
        problem = "it says that the control criterion is met, which no work meets"
        return [Vote(met=None, problem=problem)] * len(statements)
    return [
        _vote(findings[key], statement, content)
        for key, statement in zip(ids[:-1], statements, strict=True)
    ]


def _parsed(reply: str, ids: Sequence[str]) -> Mapping[str, _Finding]:
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"expected a JSON object, got {reply[:80]!r}")
    try:
        findings = _Reply.model_validate_json(reply[start : end + 1]).findings
    except ValidationError as error:
        raise ValueError(f"expected findings as JSON, got {error.errors()[0]['msg']}") from error
    by_id = {finding.id: finding for finding in findings}
    if len(findings) != len(ids) or by_id.keys() != {*ids}:
        got = [finding.id for finding in findings]
        raise ValueError(f"expected one finding each for {sorted(ids)}, got {got}")
    return by_id


def _vote(finding: _Finding, statement: Statement, content: str) -> Vote:
    """What is said to be met without a passage that shows it is no vote at all."""
    if not finding.met:
        return Vote(met=False)
    for quote in finding.quotes:
        bare = re.sub(r"^\s*> ?", "", quote, flags=re.MULTILINE)
        if _shows(bare, statement, content):
            return Vote(met=True, quote=bare)
    told = repr(finding.quotes[0])[:120] if finding.quotes else "none"
    return Vote(met=None, problem=f"expected a quote from the work that shows it, got {told}")


def _shows(quote: str, statement: Statement, content: str) -> bool:
    if not stands_in(quote, content) or INJECTION.search(quote.encode()):
        return False
    return not statement.words or any(stands_in(w, quote, least=1) for w in statement.words)
