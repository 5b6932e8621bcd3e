"""What one episode leaves: turns, verdict, reward, status. Its Arrow form: `dataset/schema.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..model import Message, ToolSpec
from ..verifiers import Verdict
from ..workspaces import Artifact
from .task import Provenance

Status = Literal[
    "submitted",
    "step_limit",
    "token_limit",
    "time_limit",
    "format_limit",
    "policy_error",
    "workspace_error",
    "verifier_error",
    "cancelled",
]
SCORED: frozenset[Status] = frozenset(
    {"submitted", "step_limit", "token_limit", "time_limit", "format_limit"}
)
RETRIED: frozenset[Status] = frozenset(
    {"policy_error", "workspace_error", "verifier_error", "cancelled"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One model call. A path from a root to a turn reproduces exactly what the sampler saw."""

    parent: int | None
    """Index of the turn whose tokens this one extends; None = a root."""
    prompt_ids: tuple[int, ...]
    """What the prompt adds to the parent's prompt + completion (a root: the whole prompt)."""
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each completion token under the sampling policy; empty = authored or not reported."""
    policy_version: str
    finish_reason: Literal["stop", "length"]
    format_error: str | None
    """Why the reply could not be used; None = it could."""
    policy_s: float
    tools_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Wall-clock seconds of an episode's parts."""

    setup_s: float = 0.0
    policy_s: float = 0.0
    tools_s: float = 0.0
    verify_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One episode of one policy on one task; one row of the dataset."""

    episode_id: str
    task_id: str
    group_id: str
    """Episodes of one task by one policy in one run share it."""
    attempt: int
    family: str
    domain: str
    policy: str
    tokenizer: str
    """Fingerprint of the tokenizer behind the token ids; empty = the turns carry no ids."""
    agent: str
    """Name and version of the scaffold."""
    image_digest: str
    status: Status
    error: str
    """Where our machinery broke; empty = it did not."""
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    turns: tuple[Turn, ...]
    artifact: Artifact
    verdict: Verdict | None
    """None = never judged (see `status`)."""
    reward: float | None
    """None = not scored; never zero for a failure of ours."""
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    provenance: Provenance

    @property
    def outcome(self) -> str:
        """`pass`, `fail` or `unscored`."""
        return self.verdict.outcome if self.verdict else "unscored"
