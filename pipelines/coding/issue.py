"""Words a failing test as a short report, the way a user of the package would write it.

It sees the failures and the names of the tests, never the fault, so it cannot tell where that is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ...verifiers.pytest_run import Failure

LINE_CHARS = 120
OPENINGS = (
    "`{package}` does not behave as its tests say any more.",
    "Something broke in `{package}`.",
    "There is a bug in `{package}`.",
    "After a recent change `{package}` gives wrong results.",
    "I ran into a regression in `{package}`.",
)
NAMINGS = (
    "The test `{test}` fails",
    "`{test}` fails",
    "The suite is red: `{test}` fails",
    "You can see it with `{test}`, which fails",
)
OTHERS = (
    ", and {count} other {tests} with it.",
    ". So {do} {count} more.",
    " together with {count} more.",
)
SHOWINGS = (
    "It runs:\n\n{statement}\n\nand gets:\n\n{message}",
    "This line of the test:\n\n{statement}\n\nends with:\n\n{message}",
    "What is run:\n\n{statement}\n\nWhat happens:\n\n{message}",
)
BARE = ("It says:\n\n{message}", "It ends with:\n\n{message}")
CLOSINGS = (
    "Find the cause in the package and fix it. Leave the tests as they are.",
    "Please repair the package; the tests are right and must not change.",
    "Fix the package so that the whole suite passes again, without touching the tests.",
)


def write_issue(*, package: str, failure: Failure, others: int, seed: int) -> str:
    """The instruction of a task.

    Args:
        failure: the failed test that is shown.
        others: how many more tests fail.
        seed: chooses the wording.
    """
    pick = random.Random(f"issue {seed}").choice
    opening = pick(OPENINGS).format(package=package)
    naming = pick(NAMINGS).format(test=failure.test)
    tests, do = ("test", "does") if others == 1 else ("tests", "do")
    more = pick(OTHERS).format(count=others, tests=tests, do=do) if others else "."
    statement, message = quoted(failure.statement, 3), quoted(failure.message, 4)
    showing = pick(SHOWINGS) if statement else pick(BARE)
    shown = showing.format(statement=statement, message=message)
    return f"{opening} {naming}{more} {shown}\n\n{pick(CLOSINGS)}"


def quoted(text: str, lines: int) -> str:
    """The first lines of a text as an indented block, each cut to a readable length."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][:lines]
    return "\n".join(f"    {line[:LINE_CHARS]}" for line in kept)


def shown_failure(failures: Sequence[Failure]) -> Failure:
    """The failure that says most in least: a short name and message with a statement first."""
    return min(
        failures, key=lambda f: (not f.statement, "[" in f.test, len(f.message) + len(f.test))
    )
