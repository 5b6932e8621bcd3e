"""From dataset rows and documents to token samples with a loss mask. Knows no files.

A row is a plain mapping with the columns `messages`, `tools`, `turns` and `tokenizer`, as a
trajectory dataset holds them; all but `messages` may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..chat import render_parts
from ..messages import Message, ToolCall, ToolSpec
from ..tokenizer import Tokenizer

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sequence and which of its tokens are learned."""

    ids: npt.NDArray[np.int32]  # [T]
    trainable: npt.NDArray[np.bool_]  # [T]
    """A token counts in the loss when True; the first token of a sequence never does."""

    def __len__(self) -> int:
        return len(self.ids)


def samples_from_row(row: Row, tokenizer: Tokenizer) -> list[Sample]:
    """The samples of one episode; every sampled token is trainable in exactly one of them.

    With this tokenizer's ids in the row there is one sample for each path from a root to a leaf
    of its turns. Otherwise the messages are rendered anew and the assistant's are learned.

    Raises:
        ValueError: a turn names a parent that does not come before it, or a tool has no schema.
    """
    turns = row.get("turns") or ()
    has_ids = bool(turns) and all(turn["completion_ids"] for turn in turns)
    if has_ids and row.get("tokenizer") == tokenizer.fingerprint:
        return list(_paths(turns))
    tools = [ToolSpec(**tool) for tool in json.loads(row.get("tools") or "[]")]
    messages = [_message(message) for message in row["messages"]]
    return [_join(render_parts(messages, tools, tokenizer))]


def samples_from_text(text: str, tokenizer: Tokenizer, *, max_tokens: int) -> Iterator[Sample]:
    """A document to pre-train on, in pieces of at most `max_tokens`: every token is learned.

    Neighbouring pieces share one token, so that each token but the first is predicted once.
    """
    if max_tokens < 2:
        raise ValueError(f"max_tokens must be at least 2, got {max_tokens}")
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    for start in range(0, len(ids) - 1, max_tokens - 1):
        yield _join([(ids[start : start + max_tokens], True)])


def _paths(turns: Sequence[Row]) -> Iterator[Sample]:
    """One sample a leaf; a turn on several paths is learned on the first of them."""
    for index, turn in enumerate(turns):
        if not -1 <= turn["parent"] < index:
            raise ValueError(
                f"expected turn {index} to name an earlier turn or -1 as its parent, "
                f"got {turn['parent']}; the row is damaged, generate it again"
            )
    inner = {turn["parent"] for turn in turns}
    learned: set[int] = set()
    for leaf in range(len(turns)):
        if leaf in inner:
            continue
        parts: list[tuple[Sequence[int], bool]] = []
        for index in _ancestry(turns, leaf):
            parts.append((turns[index]["prompt_ids"], False))
            parts.append((turns[index]["completion_ids"], index not in learned))
            learned.add(index)
        yield _join(parts)


def _ancestry(turns: Sequence[Row], leaf: int) -> list[int]:
    """Indices of the turns from the root to `leaf`."""
    path = [leaf]
    while (parent := turns[path[-1]]["parent"]) >= 0:
        path.append(parent)
    return path[::-1]


def _join(parts: Iterable[tuple[Sequence[int], bool]]) -> Sample:
    ids: list[int] = []
    trainable: list[bool] = []
    for part, learned in parts:
        ids += part
        trainable += [learned] * len(part)
    return Sample(ids=np.array(ids, np.int32), trainable=np.array(trainable, np.bool_))


def _message(row: Row) -> Message:
    """Ids are left behind: they belong to another tokenizer."""
    calls = tuple(
        ToolCall(name=call["name"], arguments=json.loads(call["arguments"]))
        for call in row.get("tool_calls") or ()
    )
    return Message(
        role=row["role"],
        content=row.get("content") or "",
        reasoning=row.get("reasoning") or "",
        tool_calls=calls,
    )
