"""The gold solution of a one-line fault as the turns of a careful agent.

Turns are short, and all that an edit needs stands in an observation before it, so that a small
policy can learn them by copying.
"""

from __future__ import annotations

import contextlib
import io
import random
import shlex
import tokenize

from ...model import ToolCall
from ..task import Move
from .mutations import Mutation

WINDOW_LINES = 40

RUN = ("I run the failing test first to see what it says.", "First I look at the failing test.")
SEARCH = (
    "The test fails. The behaviour comes from `{name}`, so I look for where it is defined.",
    "I see the failure. `{name}` does this work; I find its definition.",
)
READ = ("`{name}` is in {path}. I read it.", "The code is in {path}; I read `{name}`.")
EDIT = (
    "Line {line} has `{old}`, which is wrong. It should be `{new}`.",
    "The fault is `{old}` in line {line}; `{new}` is right.",
)
AGAIN = ("I run the test again to check the fix.", "Now I check that the test passes.")


def gold_moves(mutation: Mutation, *, test: str, seed: int) -> tuple[Move, ...]:
    """Run the test, find the function, read it, repair the line, run the test again."""
    rng = random.Random(f"gold {seed}")
    name = mutation.function.rsplit(".", 1)[-1]
    old, new = shortest_fragment(mutation.after, mutation.before)
    words = {"name": name, "path": mutation.path, "line": mutation.line, "old": old, "new": new}
    command = f"python -m pytest -q -x --tb=short {shlex.quote(test)} 2>&1 | tail -n 25"
    root = mutation.path.split("/")[0]
    flags = "-Hn" if root == mutation.path else "-rn"
    find = f"grep {flags} {shlex.quote(f'def {name}(')} {shlex.quote(root)}"
    start, end = _window(mutation, rng)

    def move(thoughts: tuple[str, ...], tool: str, **arguments: object) -> Move:
        thought = rng.choice(thoughts).format(**words)
        return Move(thought=thought, calls=(ToolCall(name=tool, arguments=arguments),))

    edit = {"path": mutation.path, "line": mutation.line, "old": old, "new": new}
    return (
        move(RUN, "bash", command=command),
        move(SEARCH, "bash", command=find),
        move(READ, "read_file", path=mutation.path, start=start, end=end),
        move(EDIT, "edit_file", **edit),
        move(AGAIN, "bash", command=command),
    )


def shortest_fragment(wrong: str, right: str) -> tuple[str, str]:
    """The fewest whole tokens of `wrong`, found once in it, that turn it into `right`."""
    starts, ends = _tokens(wrong)
    head = _shared(wrong, right)
    tail = min(_shared(wrong[::-1], right[::-1]), len(wrong) - head, len(right) - head)
    start = max(column for column in starts if column <= head)
    end = min(column for column in ends if column >= max(len(wrong) - tail, start + 1))
    before, after = [c for c in starts if c < start], [c for c in ends if c > end]
    while wrong.count(wrong[start:end]) > 1 and (before or after):
        if before and (not after or start - before[-1] <= after[0] - end):
            start = before.pop()
        else:
            end = after.pop(0)
    return wrong[start:end], right[start : len(right) - (len(wrong) - end)]


def _shared(a: str, b: str) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _tokens(line: str) -> tuple[list[int], list[int]]:
    """The columns where tokens of a line start and end; the line's own are always among them."""
    margin = len(line) - len(line.lstrip())
    starts, ends = {0}, {len(line)}
    with contextlib.suppress(tokenize.TokenError, SyntaxError):  # a part of a longer statement
        for token in tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline):
            if token.string.strip() and token.start[0] == token.end[0] == 1:
                starts.add(token.start[1] + margin)
                ends.add(token.end[1] + margin)
    return sorted(starts), sorted(ends)


def _window(mutation: Mutation, rng: random.Random) -> tuple[int, int]:
    """The lines to read: the whole function, or a part of a long one that holds the fault."""
    first, last = mutation.first_line, mutation.last_line
    if last - first < WINDOW_LINES:
        return first, last
    lowest = max(first, mutation.line - WINDOW_LINES + 1)
    start = rng.randint(lowest, min(mutation.line, last - WINDOW_LINES + 1))
    return start, start + WINDOW_LINES - 1
