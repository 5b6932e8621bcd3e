"""The contract of a task family: how a source becomes tasks. One class and a registry line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from ..workspaces import Provider
from .task import Domain, Task

SourceT = TypeVar("SourceT")
Split = Literal["train", "held_out", "all"]
"""A policy is trained on tasks from `train` sources and scored on tasks from `held_out` ones."""


class SourceError(ValueError):
    """A source that cannot give tasks: unknown, no tests, tests that fail unmutated."""


class Rejected(Exception):
    """A proposal that gave no task. A result, counted by its reason; never an error.

    Args:
        reason: a short stable slug for the funnel, such as `no_failing_test`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A cheap, deterministic idea for a task; `build` finds out whether it holds."""

    key: str
    """Unique within the family and stable between runs."""
    source: str
    seed: int


class Family(Protocol, Generic[SourceT]):
    """Makes tasks of one kind."""

    name: ClassVar[str]
    domain: ClassVar[Domain]
    version: ClassVar[str]
    images: ClassVar[tuple[str, ...]]
    """Logical images its tasks need."""

    def sources(self, split: Split = "all") -> Sequence[str]:
        """The names of the sources that ship with the family, or those of one split."""
        ...

    async def prepare(self, source: str, provider: Provider, cache: Path) -> SourceT:
        """Fetch and examine a source once; what it costs is kept below `cache`.

        Raises:
            SourceError: it cannot give tasks; the message says why and what to do.
            WorkspaceError: the machinery failed.
        """
        ...

    def propose(self, source: SourceT, *, seed: int) -> Iterator[Proposal]:
        """Proposals in a fixed order; the same source and seed give the same ones."""
        ...

    async def build(self, source: SourceT, proposal: Proposal, provider: Provider) -> Task:
        """Turn a proposal into a task.

        Raises:
            Rejected: the idea does not hold (no test fails, the mutant hangs, ...).
            WorkspaceError: the machinery failed.
        """
        ...
