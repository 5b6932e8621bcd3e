"""A task: what is asked, where, how it is judged, and where it came from. Immutable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..model import ToolCall
from ..verifiers import VerifierSpec
from ..workspaces import Limits, WorkspaceSpec

LATER_LIMITS = ("inodes", "open_files")
"""Fields of `Limits` that the first tasks did not have."""
LATER_SETTINGS = ("network", "writable")
"""The same of `WorkspaceSpec`."""

Domain = Literal["coding", "cowork"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What an episode may spend."""

    max_turns: int = 16
    max_tokens: int = 8192
    """Sum of prompt and completion of the longest turn, as the policy counts them."""
    time_limit_s: float = 300.0
    max_format_errors: int = 3
    """Unusable replies in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One turn of the gold solution: what a good agent thinks and does."""

    thought: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a task came from."""

    source: str
    """Name and version, `more-itertools==10.8.0`; datasets are split by it."""
    licence: str
    """SPDX identifier."""
    url: str
    seed: int
    generator: str
    generator_version: str
    detail: Mapping[str, str] = field(default_factory=dict)
    """What the generator did, for people: mutation kind, file, function, template."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task. `task_id` is the hash of everything below."""

    family: str
    domain: Domain
    instruction: str
    workspace: WorkspaceSpec
    verifier: VerifierSpec
    hidden: Mapping[str, bytes] = field(repr=False)
    """Assets that only the verifier sees: path -> content."""
    artifacts: tuple[str, ...]
    """Files and folders, relative to the working directory, that leave the agent's workspace."""
    solution: tuple[Move, ...] = field(repr=False)
    """The gold solution, without the closing `submit`."""
    provenance: Provenance
    budget: Budget = field(default_factory=Budget)

    @property
    def task_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the content; depends on nothing else."""
        return content_digest(described(self))


def described(task: Task) -> dict[str, Any]:
    """A task as plain data. What came later and is not used is left out: ids made before stay."""
    data = asdict(task)
    limits, default = data["workspace"]["limits"], asdict(Limits())
    for name in LATER_LIMITS:
        if limits[name] == default[name]:
            del limits[name]
    for name in LATER_SETTINGS:
        if not data["workspace"][name]:
            del data["workspace"][name]
    return data


def content_digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of JSON-like data; equal data, equal digest."""
    text = json.dumps(_digestible(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digestible(value: Any) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 60.0 == 60
    if isinstance(value, dict):
        return {key: _digestible(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_digestible(item) for item in value]
    return value
