"""What the checks of `conformance.py` stand on: their registry and a small workspace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .base import Provider, Workspace, opened
from .errors import FileRefused
from .trees import pack_tree
from .types import KIB, MIB, ExecResult, Limits, WorkspaceSpec

Check = Callable[[Provider], Awaitable[None]]
CHECKS: dict[str, Check] = {}
SMALL = Limits(
    memory_bytes=384 * MIB,
    pids=64,
    workspace_bytes=16 * MIB,
    tmp_bytes=32 * MIB,
    inodes=2 * KIB,
    open_files=256,
    output_bytes=4 * KIB,
    command_s=20.0,
    lifetime_s=300.0,
)
SPEC = WorkspaceSpec(
    image="python",
    seed=pack_tree({"seed.txt": b"seed\n", "pkg/mod.py": b"x = 1\n"}),
    env={"FROM_SPEC": "spec"},
    limits=SMALL,
)


def workspace_check(check: Callable[[Workspace], Awaitable[None]]) -> Check:
    """Register a check that needs one fresh workspace."""

    async def with_workspace(provider: Provider) -> None:
        async with opened(provider, SPEC) as workspace:
            await check(workspace)

    CHECKS[check.__name__] = with_workspace
    return with_workspace


def provider_check(check: Check) -> Check:
    """Register a check that opens its own workspaces."""
    CHECKS[check.__name__] = check
    return check


async def bash(workspace: Workspace, script: str, timeout_s: float = 20.0) -> ExecResult:
    """Run a shell script."""
    return await workspace.exec(["bash", "-c", script], timeout_s=timeout_s)


async def refused(attempt: Awaitable[object], error: type[Exception] = FileRefused) -> None:
    """Assert that an attempt raises `error`."""
    try:
        got = await attempt
    except error:
        return
    raise AssertionError(f"expected {error.__name__}, got {got!r}")
