"""What an agent said, saw and sampled so far. Outlives the failure that ends an episode."""

from __future__ import annotations

from dataclasses import replace

from ...model import Message
from ..trajectory import Turn
from .policy import Completion


class Transcript:
    """Messages and turns in the order in which they happened."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.turns: list[Turn] = []
        self._sequences: list[tuple[int, ...]] = []  # of each turn: prompt + completion

    def say(self, message: Message) -> None:
        """Add what the model will read in its next turn."""
        self.messages.append(message)

    def record(self, reply: Completion, *, format_error: str | None, policy_s: float) -> None:
        """Add a model call and its message."""
        known = bool(reply.prompt_ids and reply.completion_ids)
        prompt = reply.prompt_ids if known else ()
        completion = reply.completion_ids if known else ()
        parent = self._parent(prompt)
        inherited = 0 if parent is None else len(self._sequences[parent])
        self._sequences.append(prompt + completion)
        self.turns.append(
            Turn(
                parent=parent,
                prompt_ids=prompt[inherited:],
                completion_ids=completion,
                logprobs=reply.logprobs if len(reply.logprobs) == len(completion) else (),
                policy_version=reply.version,
                finish_reason=reply.finish_reason,
                format_error=format_error,
                policy_s=policy_s,
                tools_s=0.0,
            )
        )
        self.messages.append(reply.message)

    def add_tool_time(self, seconds: float) -> None:
        """Add to what the tools of the last turn took."""
        last = self.turns[-1]
        self.turns[-1] = replace(last, tools_s=last.tools_s + seconds)

    def _parent(self, prompt: tuple[int, ...]) -> int | None:
        """The turn with the longest sequence that `prompt` begins with; without ids the last."""
        if not prompt:
            return len(self.turns) - 1 if self.turns else None
        extended = [
            index
            for index, sequence in enumerate(self._sequences)
            if sequence and prompt[: len(sequence)] == sequence
        ]
        return max(extended, key=lambda index: len(self._sequences[index]), default=None)
