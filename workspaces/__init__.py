"""Where an agent's commands run: contracts, providers and images. Knows no task."""

from .artifact import Artifact, collect, lay
from .base import Provider, Workspace, forked, opened
from .bwrap import BwrapProvider
from .cleaning import Holdings, holdings, remove_all
from .difference import Difference, difference
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
from .types import KIB, MIB, WORKDIR, Entry, ExecResult, Limits, Page, Snapshot, WorkspaceSpec

__all__ = [
    "KIB",
    "MIB",
    "PROVIDERS",
    "WORKDIR",
    "Artifact",
    "BwrapProvider",
    "Difference",
    "DiskFull",
    "DockerProvider",
    "EngineUnavailable",
    "Entry",
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
    "Snapshot",
    "Terminal",
    "UnknownImage",
    "Workspace",
    "WorkspaceError",
    "WorkspaceGone",
    "WorkspaceSpec",
    "collect",
    "difference",
    "ensure_engine",
    "findings",
    "forked",
    "holdings",
    "lay",
    "leftovers",
    "open_provider",
    "opened",
    "pack_tree",
    "remove_all",
    "unpack_tree",
]
