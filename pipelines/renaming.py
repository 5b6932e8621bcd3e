"""Demonstrations under other names: what a small policy must copy, it cannot remember.

Names that belong to one source (columns, tables, functions, packages) are replaced throughout a
conversation. It was not played in these words, so it is for training only and enters no dataset.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_WORD = re.compile(r"[A-Za-z]{3,}")  # a part of a snake_case name is a word of its own


def names_by_source(rows: Iterable[Row]) -> dict[str, frozenset[str]]:
    """Source -> lower-case words that the agent says in demonstrations of this source alone."""
    sources: dict[str, set[str]] = defaultdict(set)
    names: dict[str, frozenset[str]] = {}
    for row in rows:
        source = row["provenance"]["source"]
        names[source] = frozenset()
        for word in _words(_said(row, "assistant")) & _words(_said(row, "user", "tool")):
            sources[word].add(source)
    for source in names:
        names[source] = frozenset(word for word, where in sources.items() if where == {source})
    return names


def renamed(row: Row, names: frozenset[str], pool: Sequence[str], *, seed: str) -> Row:
    """A row with `messages` and `tools` in which each of `names` is another word of `pool`.

    Args:
        pool: lower-case words; those that the row holds already are passed over.
    """
    rng = random.Random(f"renamed {seed}")
    held = _words(_said(row, "system", "user", "assistant", "tool"))
    free = [word for word in pool if word not in held]
    here = sorted(names & held)
    other = dict(zip(here, rng.sample(free, len(here)), strict=True))

    def rename(text: str) -> str:
        return _WORD.sub(lambda match: _like(match[0], other.get(match[0].lower())), text)

    return {"tools": row["tools"], "messages": [_renamed(each, rename) for each in row["messages"]]}


def vocabulary(texts: Iterable[str]) -> list[str]:
    """The lower-case words of some texts, each once, in alphabetical order."""
    return sorted(set().union(*map(_words, texts)))


def _renamed(message: Row, rename: Callable[[str], str]) -> Row:
    calls = [
        {"name": call["name"], "arguments": _in_strings(call["arguments"], rename)}
        for call in message["tool_calls"]
    ]
    return {
        "role": message["role"],
        "content": rename(message["content"]),
        "reasoning": rename(message["reasoning"]),
        "tool_calls": calls,
    }


def _in_strings(arguments: str, rename: Callable[[str], str]) -> str:
    changed = {
        name: rename(value) if isinstance(value, str) else value
        for name, value in json.loads(arguments).items()
    }
    return json.dumps(changed, ensure_ascii=False)


def _like(word: str, other: str | None) -> str:
    """`other` in the case of `word`; `word` itself when there is none."""
    if other is None:
        return word
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def _said(row: Row, *roles: str) -> str:
    parts: list[str] = []
    for message in row["messages"]:
        if message["role"] in roles:
            parts += (message["content"], message["reasoning"])
            for call in message["tool_calls"]:
                parts += map(str, json.loads(call["arguments"]).values())
    return "\n".join(parts)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}
