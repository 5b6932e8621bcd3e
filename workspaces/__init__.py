"""Where an agent's commands run: contracts, providers and images. Knows no task."""

from .artifact import Artifact, collect, lay, pack_tree, unpack_tree
from .base import Provider, Workspace, opened
from .bwrap import BwrapProvider
from .docker import DockerProvider, leftovers
from .doctor import findings, remove_all
from .engine import Finding, ensure_engine
from .errors import (
    DiskFull,
    EngineUnavailable,
    FileRefused,
    ImageError,
    UnknownImage,
    WorkspaceError,
    WorkspaceGone,
)
from .pool import PooledProvider
from .registry import PROVIDERS, open_provider
from .scripted import ScriptedProvider, ScriptedWorkspace
from .types import KIB, MIB, WORKDIR, ExecResult, Limits, WorkspaceSpec

__all__ = [
    "KIB",
    "MIB",
    "PROVIDERS",
    "WORKDIR",
    "Artifact",
    "BwrapProvider",
    "DiskFull",
    "DockerProvider",
    "EngineUnavailable",
    "ExecResult",
    "FileRefused",
    "Finding",
    "ImageError",
    "Limits",
    "PooledProvider",
    "Provider",
    "ScriptedProvider",
    "ScriptedWorkspace",
    "UnknownImage",
    "Workspace",
    "WorkspaceError",
    "WorkspaceGone",
    "WorkspaceSpec",
    "collect",
    "ensure_engine",
    "findings",
    "lay",
    "leftovers",
    "open_provider",
    "opened",
    "pack_tree",
    "remove_all",
    "unpack_tree",
]
