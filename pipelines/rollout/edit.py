"""Replacing a fragment on a named line: pure text in, text or an explanation out."""

from __future__ import annotations

from .observation import numbered

NEARBY_LINES = 5
"""How far from the named line a fragment is looked for, to tell the model where it is."""


class Refusal(ValueError):
    """What was asked cannot be done; the message tells the model what to change."""


def replace_at(text: str, *, line: int, old: str, new: str) -> tuple[str, str]:
    """Replace the one occurrence of `old` that starts on a line (1-based).

    Returns: the new text, and the lines that now stand there, numbered.

    Raises:
        Refusal: nothing to do, no such line, or `old` is not there exactly once.
    """
    starts = _line_starts(text)
    if not old:
        raise Refusal("`old` is empty; give the fragment of the line that is to be replaced")
    if old == new:
        raise Refusal("`old` and `new` are the same; nothing would change")
    if not 1 <= line <= len(starts):
        raise Refusal(f"there is no line {line}; the file has {len(starts)} lines")
    at = _occurrences(text, old, starts[line - 1], _line_end(text, starts, line))
    if len(at) > 1:
        raise Refusal(
            f"`old` occurs {len(at)} times on line {line}; give a longer fragment:\n"
            + _shown(text, line, line)
        )
    if not at:
        raise Refusal(_where_instead(text, starts, line, old))
    changed = text[: at[0]] + new + text[at[0] + len(old) :]
    return changed, _shown(changed, line, line + new.count("\n"))


def _where_instead(text: str, starts: list[int], line: int, old: str) -> str:
    found = [text.count("\n", 0, at) + 1 for at in _occurrences(text, old, 0, len(text))]
    near = [number for number in found if abs(number - line) <= NEARBY_LINES]
    if len(near) == 1:
        return (
            f"`old` is not on line {line} but on line {near[0]}; call again with line {near[0]}:\n"
            + _shown(text, near[0], near[0])
        )
    if found:
        places = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
        hint = f"`old` is not on line {line}; it is on line(s) {places}. Line {line} reads:\n"
    else:
        hint = f"`old` does not occur in the file; copy it exactly. Line {line} reads:\n"
    return hint + _shown(text, line, line)


def _occurrences(text: str, fragment: str, start: int, stop: int) -> list[int]:
    """Offsets in [start, stop) at which the fragment begins; it may run past `stop`."""
    found = []
    at = text.find(fragment, start, stop + len(fragment) - 1)
    while at != -1:
        found.append(at)
        at = text.find(fragment, at + 1, stop + len(fragment) - 1)
    return found


def _line_starts(text: str) -> list[int]:
    starts = [0] + [i + 1 for i, char in enumerate(text) if char == "\n"]
    return starts[:-1] if len(starts) > 1 and starts[-1] == len(text) else starts


def _line_end(text: str, starts: list[int], line: int) -> int:
    return starts[line] if line < len(starts) else len(text)


def _shown(text: str, first: int, last: int) -> str:
    return numbered(text.split("\n")[first - 1 : last], first)
