"""Where an agent's commands run: contracts, providers and images. Knows no task."""

from .artifact import Artifact, collect, lay
from .base import Provider, Workspace, opened
from .bwrap import BwrapProvider
from .cleaning import Holdings, holdings, remove_all
from .docker import DockerProvider
from .doctor import findings
from .engine import Finding, ensure_engine
from .errors import (
    DiskFull,
    EngineUnavailable,
    FileRefused,
    ImageError,
    NetworkRefused,
    NotStarted,
    UnknownImage,
    WorkspaceError,
    WorkspaceGone,
)
from .pool import PooledProvider
from .reaper import leftovers
from .registry import PROVIDERS, open_provider
from .screen import Screen
from .scripted import ScriptedProvider, ScriptedWorkspace
from .sessions import Report, Service, Shell, Terminal
from .trees import pack_tree, unpack_tree
from .types import KIB, MIB, WORKDIR, ExecResult, Limits, Page, WorkspaceSpec

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
    "Holdings",
    "ImageError",
    "Limits",
    "NetworkRefused",
    "NotStarted",
    "Page",
    "PooledProvider",
    "Provider",
    "Report",
    "Screen",
    "ScriptedProvider",
    "ScriptedWorkspace",
    "Service",
    "Shell",
    "Terminal",
    "UnknownImage",
    "Workspace",
    "WorkspaceError",
    "WorkspaceGone",
    "WorkspaceSpec",
    "collect",
    "ensure_engine",
    "findings",
    "holdings",
    "lay",
    "leftovers",
    "open_provider",
    "opened",
    "pack_tree",
    "remove_all",
    "unpack_tree",
]
