"""Repair drills: what a repair looks like, on any Python file at hand, nothing executed.

For pre-training only. A drill is written, not sampled, and no verifier saw it, so it never enters
a dataset; demonstrations come from `gold.py` through the ordinary rollout.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

from ...model import Message, ToolCall
from ..rollout.edit import Refusal, replace_at
from ..rollout.observation import numbered
from .gold import EDIT, READ, shortest_fragment
from .mutations import Mutation, mutations_of

MAX_FUNCTION_LINES = 30
PER_FILE = 40


def repair_drills(
    files: Sequence[tuple[str, str]], *, system: str, seed: int
) -> Iterator[tuple[Message, ...]]:
    """Conversations that read a function, repair its one faulty line and submit.

    Args:
        files: path and text of Python files; those that do not parse are passed over.
        system: the agent's system message.
    """
    rng = random.Random(f"drills {seed}")
    for path, text in files:
        try:
            found = [each for each in mutations_of(path, text) if _fits(each)]
        except (SyntaxError, ValueError):
            continue
        for mutation in rng.sample(found, min(PER_FILE, len(found))):
            with contextlib.suppress(Refusal):  # a fragment that overlaps itself
                yield _drill(mutation, text, system, rng)


def _fits(mutation: Mutation) -> bool:
    return mutation.last_line - mutation.first_line < MAX_FUNCTION_LINES


def _drill(mutation: Mutation, text: str, system: str, rng: random.Random) -> tuple[Message, ...]:
    broken = mutation.apply(text)
    first, last = mutation.first_line, mutation.last_line
    old, new = shortest_fragment(mutation.after, mutation.before)
    words = {
        "name": mutation.function.rsplit(".", 1)[-1],
        "path": mutation.path,
        "line": mutation.line,
        "old": old,
        "new": new,
    }
    where = {"path": mutation.path, "start": first, "end": last}
    edit = {"path": mutation.path, "line": mutation.line, "old": old, "new": new}
    _, edited = replace_at(broken, line=mutation.line, old=old, new=new)
    return (
        Message(role="system", content=system),
        Message(
            role="user",
            content=f"One line of `{words['name']}` in {mutation.path} is wrong. Repair it.",
        ),
        _call(rng.choice(READ).format(**words), "read_file", where),
        Message(role="tool", content=numbered(broken.splitlines()[first - 1 : last], first)),
        _call(rng.choice(EDIT).format(**words), "edit_file", edit),
        Message(role="tool", content=f"edited {mutation.path}:\n{edited}"),
        _call("The fault is repaired.", "submit", {}),
    )


def _call(thought: str, tool: str, arguments: dict[str, object]) -> Message:
    calls = (ToolCall(name=tool, arguments=arguments),)
    return Message(role="assistant", reasoning=thought, tool_calls=calls)
