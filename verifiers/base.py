"""The contract of a verifier: a fresh workspace, the artifact laid in, hidden assets beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from ..workspaces import Workspace
from .types import Verdict, VerifierSpec


class Verifier(Protocol):
    """Judges what an agent left behind. Stateless: the same input gives the same verdict."""

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever a verdict could change, so that stored verdicts can be told apart."""

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the artifact that lies in `workspace`.

        Args:
            workspace: fresh, never touched by the agent: the task's seed plus the artifact.
            hidden: the task's hidden assets, path -> content; laid by the verifier, last.

        Raises:
            WorkspaceError: the workspace failed; the caller records `verifier_error`.
        """
        ...
