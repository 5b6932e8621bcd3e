"""`rollmill doctor` and `rollmill clean`: what this machine can do, and what we left on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .running import Json, heard, show

if TYPE_CHECKING:
    from ...workspaces import Finding


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Install, start and build.")] = False,
    json: Json = False,
) -> None:
    """What works on this machine, and how to fix what does not. Exit 1 when nothing can run.

    Examples:

    `rollmill doctor`

    `rollmill doctor --fix`
    """
    from rich.console import Console
    from rich.table import Table

    from ...workspaces import findings
    from ..progress import shown

    with shown(quiet=json), heard():
        found = findings(fix=fix)
        if fix and _can_run(found):
            asyncio.run(_build_images())
            found = findings()
    if json:
        show({"findings": [asdict(one) for one in found]}, as_json=True, text="")
    else:
        table = Table("", "what", "found", "to do")
        for one in found:
            table.add_row("ok" if one.ok else "--", one.name, one.detail, one.fix)
        Console().print(table)
    if not _can_run(found):
        raise typer.Exit(1)


def clean(
    images: Annotated[bool, typer.Option(help="Also our images.")] = False,
    caches: Annotated[bool, typer.Option(help="Also fetched sources and Prefect's home.")] = False,
    json: Json = False,
) -> None:
    """Remove our containers, and if asked our images and caches. Runs are never touched.

    Example: `rollmill clean --images --caches`
    """
    import shutil

    import platformdirs

    from ...workspaces import EngineUnavailable, remove_all

    try:
        removed = remove_all(with_images=images)
    except EngineUnavailable:
        removed = []  # nothing of ours can be running
    if caches:
        for folder in (
            platformdirs.user_cache_path("rollmill"),
            platformdirs.user_state_path("rollmill"),
        ):
            if folder.exists():
                shutil.rmtree(folder)
                removed.append(str(folder))
    show({"removed": removed}, as_json=json, text="\n".join(removed) or "nothing to remove")


def _can_run(found: Sequence[Finding]) -> bool:
    return any(one.ok for one in found if one.name in ("engine", "bwrap"))


async def _build_images() -> None:
    from ...pipelines.families import FAMILIES
    from ...workspaces import open_provider

    provider = open_provider()
    try:
        needed = {image for family in FAMILIES.values() for image in family.images}
        await provider.prepare(sorted(needed))
    finally:
        await provider.close()
