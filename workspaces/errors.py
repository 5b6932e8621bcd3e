"""What can go wrong with a workspace itself. A failed command is a result and never raises."""

from __future__ import annotations

from collections.abc import Iterable


class WorkspaceError(Exception):
    """Base of everything raised here: our machinery failed, never the agent's work."""


class EngineUnavailable(WorkspaceError):
    """No engine answers, or it lacks something a workspace needs."""


class WorkspaceGone(WorkspaceError):
    """The container or its runner died under us. Never shown to a model as output."""


class ImageError(WorkspaceError):
    """An image could not be resolved, built or loaded."""


class UnknownImage(ImageError, ValueError):
    """A logical image name that nothing defines."""

    def __init__(self, name: str, choices: Iterable[str]) -> None:
        super().__init__(f"unknown image {name!r}; choose one of: {', '.join(sorted(choices))}")


class NetworkRefused(WorkspaceError, ValueError):
    """A workspace that may reach some hosts, asked of a provider that cannot hold it to them."""

    def __init__(self, provider: str, hosts: Iterable[str]) -> None:
        super().__init__(
            f"workspaces of {provider!r} cannot be held to a list of hosts "
            f"({', '.join(hosts)}); use one of docker, bwrap, or no network"
        )


class FileRefused(WorkspaceError):
    """A file transfer that is not allowed: a link, a path out of the tree, too many bytes."""


class NotStarted(WorkspaceError):
    """A service that cannot be started: no such program, no such folder."""


class DiskFull(WorkspaceError):
    """The host or the workspace has no room for what had to be written."""
