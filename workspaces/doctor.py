"""What works on this machine for workspaces, how to fix what does not, and how to remove ours."""

from __future__ import annotations

import contextlib
import shutil

from . import images
from .bwrap import usable
from .docker import LABEL
from .engine import ENGINE_ERRORS, Finding, connect, ensure_engine
from .errors import EngineUnavailable

DISK_FREE_GIB = 5


def findings(*, fix: bool = False) -> list[Finding]:
    """Every check for workspaces, in the order in which to fix them. Blocks; only `fix` changes."""
    engine = ensure_engine(fix=fix)
    return [engine, _mmdebstrap(), _bwrap(), *_images(engine.ok), _disk(), _soffice(engine.ok)]


def remove_all(*, with_images: bool = False) -> list[str]:
    """Remove every container that carries our label, and our images when asked; returns names.

    Raises:
        EngineUnavailable: no engine answers.
    """
    client, _ = connect()
    removed = []
    with contextlib.closing(client):
        ours = {"label": LABEL}
        for container in client.containers(all=True, filters=ours):
            with contextlib.suppress(*ENGINE_ERRORS):  # it may be on its way out already
                client.remove_container(container["Id"], force=True)
            removed.append(container["Names"][0].lstrip("/"))
        for image in client.images(filters=ours) if with_images else ():
            client.remove_image(image["Id"], force=True)
            removed += image["RepoTags"] or [image["Id"]]
    return removed


def _mmdebstrap() -> Finding:
    found = shutil.which("mmdebstrap")
    return Finding(
        name="mmdebstrap",
        ok=found is not None,
        detail=found or "missing: images can only be built on a base from a registry",
        fix="" if found else "apt-get install mmdebstrap",
    )


def _bwrap() -> Finding:
    try:
        python = usable()
    except EngineUnavailable as error:
        return Finding(name="bwrap", ok=False, detail=str(error), fix="apt-get install bubblewrap")
    return Finding(name="bwrap", ok=True, detail=f"works, with {python}")


def _images(engine: bool) -> list[Finding]:
    if not engine:
        return []
    client, _ = connect()
    with contextlib.closing(client):
        tags = {name: images.tag_of(name) for name in images.SPECS}
        return [
            Finding(name=f"image {name}", ok=True, detail=_state(images.present(client, tag), tag))
            for name, tag in tags.items()
        ]


def _state(digest: str, tag: str) -> str:
    return f"{tag} is present" if digest else f"{tag} is built at its first use"


def _disk() -> Finding:
    place = images.cache_dir()
    free = shutil.disk_usage(place).free / 2**30
    ok = free >= DISK_FREE_GIB
    fix = "" if ok else f"free {DISK_FREE_GIB} GiB there; `rollmill clean --images` removes ours"
    return Finding(name="disk", ok=ok, detail=f"{free:.0f} GiB free at {place}", fix=fix)


def _soffice(engine: bool) -> Finding:
    found = shutil.which("soffice")
    if found or engine:
        detail = found or "not on the host; the office image has its own"
        return Finding(name="soffice", ok=True, detail=detail)
    fix = "apt-get install libreoffice-calc-nogui libreoffice-writer-nogui python3-uno"
    detail = "missing, and no engine to run the office image: no workbook tasks"
    return Finding(name="soffice", ok=False, detail=detail, fix=fix)
