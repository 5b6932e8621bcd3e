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
    running: Annotated[bool, typer.Option(help="Also containers of runs at work.")] = False,
    caches: Annotated[bool, typer.Option(help="Also fetched sources and Prefect's home.")] = False,
    json: Json = False,
) -> None:
    """Remove what dead runs left: containers, scratch; if asked more. Runs are never touched.

    Example: `rollmill clean --images --caches`
    """
    import shutil

    import platformdirs

    from ...workspaces import holdings, remove_all

    removed = remove_all(with_images=images, running=running)
    kept = holdings().living
    if caches:
        for folder in (
            platformdirs.user_cache_path("rollmill"),
            platformdirs.user_state_path("rollmill"),
        ):
            if folder.exists() and not kept:  # else the ledger is in use
                shutil.rmtree(folder)
                removed.append(str(folder))
    text = "\n".join(removed) or "nothing to remove"
    if kept:
        text += f"\nkept, of runs at work: {', '.join(kept)}; --running removes these too"
    show({"removed": removed, "kept": kept}, as_json=json, text=text)


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
