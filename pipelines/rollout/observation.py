"""What an agent gets to see of a tool's result: bounded, numbered, and the same on a rerun.

Only command output is steadied; files are always shown as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SUMMARY_TIME = re.compile(
    r"^(.*\b(?:passed|failed|errors?|skipped|deselected|xfailed|xpassed|warnings?"
    r"|no tests ran|Ran \d+ tests?)\b.*?) in \d+\.\d+s(?: \(\d+:\d\d:\d\d\))?",
    re.MULTILINE,
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")


def steady(output: str) -> str:
    """Remove what a rerun would not repeat: a test runner's seconds, objects' addresses."""
    return _ADDRESS.sub("at 0x...", _SUMMARY_TIME.sub(r"\1", output))


def cap(text: str, *, max_chars: int, rest: str) -> str:
    """Keep head and tail of a long text and say, with `rest`, how to see what was cut."""
    if len(text) <= max_chars:
        return text
    head = max_chars // 2
    tail = max_chars - head
    cut = len(text) - max_chars
    return f"{text[:head]}\n[... {cut} characters cut; {rest} ...]\n{text[-tail:]}"


def numbered(lines: Sequence[str], first: int) -> str:
    """Lines as `  12| code`, the number of the first one being `first` (1-based)."""
    return "\n".join(f"{number:>4}| {line}" for number, line in enumerate(lines, first))
