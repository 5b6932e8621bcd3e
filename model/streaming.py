"""Reads a reply while it is sampled: thinking and content as they come, calls when they are whole.

The pieces add up to what `parse_completion` makes of all ids; it has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .messages import Message, ToolSpec
from .reply import parse_completion
from .tokenizer import END_MESSAGE, END_THINK, THINK, TOOL_CALL, Special, Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """What became certain."""

    reasoning: str = ""
    content: str = ""


class ReplyStream:
    """One reply, token by token."""

    def __init__(self, tools: Sequence[ToolSpec], tokenizer: Tokenizer) -> None:
        self._tools = tools
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._run: list[int] = []  # ordinary ids whose text is not certain yet
        self._text = ""  # of the current part, not yet told
        self._after_think = False  # an opening marker was just skipped
        self._begun = False  # the content, after the line breaks before it
        self._part = "reasoning"  # then "content", then "calls"
        self._told = {"reasoning": "", "content": ""}

    def feed(self, token_id: int) -> Delta:
        """Take the next sampled id."""
        special = self._tokenizer.special(token_id)
        first = not self._ids
        self._ids.append(token_id)
        if self._part == "calls":
            return Delta()
        if special is None:
            self._run.append(token_id)
            text = self._tokenizer.decode(self._run)
            if text.endswith("\ufffd"):  # perhaps the first bytes of a character
                return Delta()
            self._run.clear()
            return self._more(text)
        self._text += self._tokenizer.decode(self._run)
        self._run.clear()
        if self._part == "reasoning" and special == END_THINK:
            told = self._tell(self._text.removesuffix("\n"))
            self._part, self._text = "content", ""
            return told
        if self._part == "content" and special == TOOL_CALL:
            self._part = "calls"
            return Delta()  # whether the calls are well formed decides what the content is
        if first and special == THINK:
            self._after_think = True
            return Delta()
        return self._more(special)

    def finish(self) -> tuple[Delta, Message, str | None]:
        """What was not told yet, and `parse_completion` of all ids."""
        message, error = parse_completion(self._ids, self._tools, self._tokenizer)
        rest = {}
        for part, whole in (("reasoning", message.reasoning), ("content", message.content)):
            assert whole.startswith(self._told[part])
            rest[part] = whole[len(self._told[part]) :]
        return Delta(**rest), message, error

    def _more(self, text: str) -> Delta:
        self._text += text
        if self._after_think:
            self._text, self._after_think = self._text.removeprefix("\n"), False
        if self._part == "content" and not self._begun:
            # Up to two line breaks before the content do not count; a third one does.
            body = self._text.removeprefix("\n").removeprefix("\n")
            if not body:
                return Delta()
            self._text, self._begun = body, True
        # A line break or the end of message may turn out to be the last thing.
        for end in (END_MESSAGE, Special("\n")):
            if self._text.endswith(end):
                return self._tell(self._text.removesuffix(end).removesuffix("\n"))
        return self._tell(self._text)

    def _tell(self, text: str) -> Delta:
        if not text:
            return Delta()
        self._text = self._text[len(text) :]
        self._told[self._part] += text
        return Delta(**{self._part: text})
